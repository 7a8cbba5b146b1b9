"""The answer to a player of WHEP, which is the only one that it gets, whatever it is shown later."""

from dataclasses import replace

from signaling.sdp.offered import kind_of
from signaling.sdp.parsing import parse
from signaling.sdp.session_description import Direction, Section


def played_answer(answer: str, stream: str) -> str:
    """Return an answer as a player can use it for its whole session.

    Every m-section is sendonly, since media may come later where nobody publishes yet. It names no SSRC, because each
    track that is shown later has others: packets say by mid or payload type where they belong. All m-sections are of
    one stream (RFC 8830), which a page plays in one element with sound and picture in step.

    Args:
        answer: the text of the answer.
        stream: the name of the stream.
    """
    session = parse(answer)
    sections = tuple(_played(each, stream) if kind_of(each) is not None else each for each in session.sections)
    return replace(session, sections=sections).serialize()


def _played(section: Section, stream: str) -> Section:
    return replace(section, direction=Direction.SENDONLY, msids=((stream, section.kind),), ssrcs=(), ssrc_groups=())
