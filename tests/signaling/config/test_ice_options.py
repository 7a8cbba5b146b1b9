"""What of the configuration concerns ICE."""

import pytest

from signaling.config.configuration import Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.ice_options import IceOptions


def ice(body: str) -> IceOptions:
    return load_config(Flags(dev=True, config_body=body), {}).ice


def test_tcp_is_on_unless_the_operator_says_otherwise() -> None:
    assert ice("port: 1") == IceOptions(7881, tcp_port_given=False)
    assert ice("rtc: {tcp_port: 443}") == IceOptions(443, tcp_port_given=True)
    assert ice("rtc: {tcp_port: 0, force_tcp: true}") == IceOptions(0, tcp_port_given=True, force_tcp=False)


def test_tcp_may_be_forced_and_its_fallback_left_out() -> None:
    options = ice("rtc: {force_tcp: true, allow_tcp_fallback: false}")
    assert options.force_tcp
    assert not options.tcp_fallback


def test_a_port_beyond_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="tcp_port"):
        ice("rtc: {tcp_port: 70000}")


def test_flags_and_variables_set_the_port() -> None:
    assert load_config(Flags(dev=True), {"LIVEKIT_RTC_TCP_PORT": "9"}).ice.tcp_port == 9
