"""Sections of LiveKit's file whose keys are acted on, as models that check their values.

`configuration.py` has those of the main sections beside the file itself.
"""

import os
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from signaling.config.options import MAX_NAME_BYTES, MAX_TEXT_BYTES, LimitOptions, TlsOptions, WebhookOptions
from signaling.config.secret_files import path_of
from signaling.config.values import parse_count, parse_duration_s, parse_rate, parse_size, parse_texts, parse_urls

Texts = Annotated[tuple[str, ...], BeforeValidator(parse_texts)]
Size = Annotated[int, BeforeValidator(parse_size)]
_LIMITS = LimitOptions()
_WEBHOOKS = WebhookOptions()


class Section(BaseModel):
    """A mapping of keys. Unknown ones never get here: `check_names` has refused them with their line."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def files_of_tls(cert_file: str, key_file: str) -> TlsOptions | None:
    """Return the files of a certificate, with `~` and variables in their names replaced; None: none are named."""
    if not cert_file:
        return None
    cert, key = (os.fspath(path_of(name)) for name in (cert_file, key_file))
    return TlsOptions(cert, key)


class TlsSection(Section):
    """`tls`: the certificate of the main port. Both keys are given or none."""

    cert_file: str = ""
    key_file: str = ""

    @model_validator(mode="after")
    def check(self) -> "TlsSection":
        """Refuse one file without the other."""
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file are needed together")
        return self

    def options(self) -> TlsOptions | None:
        """Return the section for the rest of the server; None: no TLS."""
        return files_of_tls(self.cert_file, self.key_file)


class _Filter(Section):
    include_events: Texts = ()
    exclude_events: Texts = ()


class _Queue(Section):
    max_age: Annotated[float, BeforeValidator(parse_duration_s)] = 0.0
    max_depth: Annotated[int, BeforeValidator(parse_count)] = 0


class WebhookSection(Section):
    """`webhook`: where webhooks go, and which."""

    urls: Annotated[tuple[str, ...], BeforeValidator(parse_urls)] = ()
    api_key: str = ""
    filter_params: _Filter = Field(default_factory=_Filter)
    resource_url_notifier: _Queue = Field(default_factory=_Queue)

    def options(self, full_room: bool) -> WebhookOptions:
        """Return the section for the rest of the server. A bound of 0 is LiveKit's default, as in livekit-server."""
        queue = self.resource_url_notifier
        return WebhookOptions(
            urls=self.urls,
            api_key=self.api_key,
            include=frozenset(self.filter_params.include_events),
            exclude=frozenset(self.filter_params.exclude_events),
            max_age_s=queue.max_age or _WEBHOOKS.max_age_s,
            max_depth=queue.max_depth or _WEBHOOKS.max_depth,
            full_room=full_room,
        )


class LimitSection(Section):
    """`limit`: the most that participants and the server may have. 0 means no limit of the operator's."""

    num_tracks: Size = _LIMITS.tracks
    bytes_per_sec: Annotated[float, BeforeValidator(parse_rate)] = _LIMITS.bytes_per_s
    subscription_limit_video: Size = _LIMITS.video_subscriptions
    subscription_limit_audio: Size = _LIMITS.audio_subscriptions
    max_metadata_size: Size = _LIMITS.metadata_bytes
    max_attributes_size: Size = _LIMITS.attributes_bytes
    max_room_name_length: Size = _LIMITS.room_name_bytes
    max_participant_identity_length: Size = _LIMITS.identity_bytes
    max_participant_name_length: Size = _LIMITS.name_bytes
    max_data_blob_key_length: Size = _LIMITS.blob_key_bytes
    max_data_blobs_size: Size = _LIMITS.blobs_bytes
    max_data_track_custom_encoding_length: Size = _LIMITS.encoding_bytes

    def options(self, metadata: int, room_name: int, identity: int) -> LimitOptions:
        """Return the section for the rest of the server. The arguments are older keys in `room`, which win if set."""
        return LimitOptions(
            tracks=self.num_tracks,
            bytes_per_s=self.bytes_per_sec,
            video_subscriptions=self.subscription_limit_video,
            audio_subscriptions=self.subscription_limit_audio,
            metadata_bytes=_text(metadata or self.max_metadata_size),
            attributes_bytes=_text(self.max_attributes_size),
            room_name_bytes=_name(room_name or self.max_room_name_length),
            identity_bytes=_name(identity or self.max_participant_identity_length),
            name_bytes=_name(self.max_participant_name_length),
            blob_key_bytes=_name(self.max_data_blob_key_length),
            blobs_bytes=_text(self.max_data_blobs_size),
            encoding_bytes=_name(self.max_data_track_custom_encoding_length),
        )


def _text(limit: int) -> int:
    return min(limit or MAX_TEXT_BYTES, MAX_TEXT_BYTES)


def _name(limit: int) -> int:
    return min(limit or MAX_NAME_BYTES, MAX_NAME_BYTES)
