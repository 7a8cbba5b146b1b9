"""Every key that livekit-server 1.13 reads from its YAML, so that unknown keys in a file can be refused by name.

Who calls it: `configuration.py`. A value of `ACTED_ON` means that this server acts on the key, `IGNORED` that LiveKit
knows it and this server does not act on it yet (whatever is below it); a nested table holds the keys of a mapping, and
`Each` those of every mapping of a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Use(Enum):
    """What this server does with a key."""

    ACTED_ON = "acted on"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Each:
    """The keys that every mapping of a list may have."""

    keys: "KeyTable"


KeyTable = Mapping[str, "Use | KeyTable | Each"]


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _ignored(names: str) -> dict[str, Use | KeyTable | Each]:
    return dict.fromkeys(names.split(), Use.IGNORED)


def _acted_on(names: str) -> dict[str, Use | KeyTable | Each]:
    return dict.fromkeys(names.split(), Use.ACTED_ON)


_ADDRESS_FILTER = _acted_on("includes excludes")
_RTC: KeyTable = {
    "udp_port": Use.ACTED_ON,
    "node_ip": Use.ACTED_ON,
    **_acted_on("port_range_start port_range_end tcp_port force_tcp allow_tcp_fallback"),
    **_acted_on("use_external_ip stun_servers advertise_internal_ip external_ip_only"),
    "interfaces": _ADDRESS_FILTER,
    "ips": _ADDRESS_FILTER,
    "batch_io": _ignored("batch_size max_flush_interval"),
    "pli_throttle": dict.fromkeys(("low_quality", "mid_quality", "high_quality"), Use.ACTED_ON),
    "congestion_control": {
        "enabled": Use.ACTED_ON,
        "allow_pause": Use.ACTED_ON,
        # How livekit-server estimates and allocates; here the sending side always does.
        **_ignored(
            "stream_allocator remote_bwe use_send_side_bwe_interceptor use_send_side_bwe send_side_bwe_pacer "
            "send_side_bwe"
        ),
    },
    "forward_stats": _ignored("summary_interval report_interval report_window"),
    "turn_servers": Each(_acted_on("host port protocol username credential secret secret_file ttl")),
    **_ignored(
        "use_stun_port_as_ice "
        "use_ice_lite enable_loopback_candidate use_mdns sctp_min_cwnd sctp_fast_rtx_wnd "
        "sctp_cwnd_ca_step enable_warp skip_external_ip_validation "
        "host_acceptance_min_wait srflx_acceptance_min_wait prflx_acceptance_min_wait relay_acceptance_min_wait "
        "strict_acks packet_buffer_size packet_buffer_size_video "
        "packet_buffer_size_audio tcp_fallback_rtt_threshold allow_udp_unstable_fallback "
        "reconnect_on_publication_error reconnect_on_subscription_error reconnect_on_data_channel_error "
        "data_channel_max_buffered_amount datachannel_slow_threshold datachannel_lossy_target_latency "
        "datachannel_data_track_target_latency enable_rtp_stream_restart_detection"
    ),
}

KNOWN_KEYS: KeyTable = {
    # Ours: livekit-server takes every core by itself.
    "media_threads": Use.ACTED_ON,
    # Ours too: livekit-server is not watched from inside.
    "watchdog": Use.ACTED_ON,
    # Ours as well: livekit-server leaves TLS, and where a client is, to a proxy.
    "tls": _acted_on("cert_file key_file"),
    "proxy_protocol_trusted_cidrs": Use.ACTED_ON,
    "port": Use.ACTED_ON,
    "bind_addresses": Use.ACTED_ON,
    "keys": Use.ACTED_ON,
    "log_level": Use.ACTED_ON,
    "rtc": _RTC,
    "logging": {
        "level": Use.ACTED_ON,
        "json": Use.ACTED_ON,
        **_ignored(
            "sample component_levels sample_initial sample_interval item_sample_seconds item_sample_initial "
            "item_sample_interval pion_level"
        ),
    },
    "prometheus": dict.fromkeys(("port", "username", "password"), Use.ACTED_ON),
    "prometheus_port": Use.ACTED_ON,
    "debug_handler": _ignored("port"),
    "redis": _ignored(
        "address username password db use_tls tls sentinel_master_name sentinel_username sentinel_password "
        "sentinel_addresses cluster_addresses dial_timeout read_timeout write_timeout max_redirects pool_timeout "
        "pool_size"
    ),
    "audio": {
        "enable_loss_proxying": Use.ACTED_ON,
        **_ignored("active_level min_percentile update_interval smooth_intervals active_red_encoding"),
    },
    "video": {
        "dynacast_pause_delay": Use.ACTED_ON,
        "dynacast_denied_delay": Use.ACTED_ON,
        **_ignored("stream_tracker_manager codec_regression_threshold"),
    },
    "room": {
        "empty_timeout": Use.ACTED_ON,
        "departure_timeout": Use.ACTED_ON,
        "max_participants": Use.ACTED_ON,
        # Ours.
        "forward_loudest": Use.ACTED_ON,
        "playout_delay": _acted_on("enabled min max"),
        **_acted_on(
            "auto_create enabled_codecs enable_full_room_in_webhooks enable_remote_unmute max_metadata_size "
            "max_room_name_length max_participant_identity_length sync_streams room_configurations"
        ),
        **_ignored("create_room_timeout create_room_attempts update_batch_target_size"),
    },
    "turn": {
        **_acted_on(
            "enabled domain cert_file key_file tls_port udp_port relay_range_start relay_range_end external_tls"
        ),
        **_acted_on("bind_addresses per_user_relay_allocation_limit ttl_seconds"),
        # Ours: livekit-server has no TURN over TCP, and tells port 443 in place of `tls_port`.
        **_acted_on("tcp_port advertised_tcp_port advertised_tls_port"),
        **_ignored(
            # Needless here: nothing is relayed but to this server's media.
            "allow_restricted_peer_cidrs deny_peer_cidrs "
            # Those of LiveKit's Helm chart, which it leaves in the server's configuration.
            "loadBalancerAnnotations secretName"
        ),
    },
    "ingress": _ignored("rtmp_base_url whip_base_url"),
    "sip": {},
    "webhook": {
        # One queue for each room and URL takes the place of workers.
        "url_notifier": _ignored("num_workers queue_size"),
        "resource_url_notifier": _acted_on("max_age max_depth"),
        "filter_params": _acted_on("include_events exclude_events"),
        **_acted_on("urls api_key"),
    },
    "node_selector": _ignored("kind sort_by algorithm cpu_load_limit sysload_limit regions"),
    "signal_relay": _ignored("retry_timeout min_retry_interval max_retry_interval stream_buffer_size connect_attempts"),
    "psrpc": _ignored("max_attempts timeout backoff buffer_size"),
    "limit": _acted_on(
        "num_tracks bytes_per_sec subscription_limit_video subscription_limit_audio max_metadata_size "
        "max_attributes_size max_room_name_length max_participant_identity_length max_participant_name_length "
        "max_data_blob_key_length max_data_blobs_size max_data_track_custom_encoding_length"
    )
    | _ignored("signal_message_size_limit agent_signal_message_size_limit max_api_request_body_size"),
    "agents": _ignored("enable_user_data_recording enable_user_data_redaction target_load"),
    "metric": {
        "timestamper_config": _ignored("one_way_delay_estimator_min_interval one_way_delay_estimator_max_batch"),
        "collector": _ignored("sampling_interval_ms batch_interval_ms"),
        "reporter": _ignored("reporting_interval_ms"),
    },
    "trace": _ignored("jaeger_url"),
    "node_stats": _ignored("stats_update_interval stats_rate_measurement_intervals stats_max_delay"),
    "api": _ignored("execution_timeout check_interval max_check_interval enable_psrpc_for_get_list_participants"),
    **_acted_on("key_file region development enable_data_tracks enable_participant_data_blob"),
}

PARTS: Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("rtc", "udp_port"): (("start",), ("end",)),
    ("rtc", "node_ip"): (("ipv4",), ("ipv6",)),
}
"""Keys that LiveKit's generated flags give in parts."""

BOOLEANS = _names(
    "agents.enable_user_data_recording agents.enable_user_data_redaction api.enable_psrpc_for_get_list_participants "
    "audio.active_red_encoding audio.enable_loss_proxying development enable_data_tracks enable_participant_data_blob "
    "logging.json logging.sample redis.use_tls room.auto_create room.enable_remote_unmute "
    "room.enable_full_room_in_webhooks room.playout_delay.enabled room.sync_streams rtc.advertise_internal_ip "
    "rtc.allow_tcp_fallback rtc.allow_udp_unstable_fallback rtc.congestion_control.allow_pause "
    "rtc.congestion_control.enabled "
    "rtc.congestion_control.stream_allocator.disable_etimation_unmanaged_tracks "
    "rtc.congestion_control.use_send_side_bwe rtc.congestion_control.use_send_side_bwe_interceptor "
    "rtc.enable_loopback_candidate rtc.enable_rtp_stream_restart_detection rtc.external_ip_only rtc.force_tcp "
    "rtc.reconnect_on_data_channel_error rtc.reconnect_on_publication_error rtc.reconnect_on_subscription_error "
    "rtc.skip_external_ip_validation rtc.strict_acks rtc.use_external_ip rtc.use_ice_lite rtc.use_mdns "
    "rtc.use_stun_port_as_ice turn.enabled turn.external_tls"
)
"""Keys whose flag needs no value."""

ONLY_IN_FILES = _names(
    "bind_addresses keys logging.component_levels node_selector.regions node_stats.stats_rate_measurement_intervals "
    "proxy_protocol_trusted_cidrs "
    "redis.cluster_addresses redis.sentinel_addresses redis.tls room.enabled_codecs room.room_configurations "
    "rtc.interfaces.excludes rtc.interfaces.includes rtc.ips.excludes rtc.ips.includes rtc.stun_servers "
    "rtc.turn_servers turn.allow_restricted_peer_cidrs turn.bind_addresses turn.deny_peer_cidrs "
    "turn.loadBalancerAnnotations webhook.filter_params.exclude_events webhook.filter_params.include_events "
    "webhook.urls"
)
"""Keys that are lists or mappings, for which livekit-server has no flag."""
