"""What is asked of whom: the settings of a captioning run, looked up and checked before anything begins."""

from __future__ import annotations

from dataclasses import dataclass

from raydist import choice
from raydist.caption import providers
from raydist.caption.asking import Access
from raydist.caption.local import require_local
from raydist.caption.prepare import Sending
from raydist.caption.prices import Price, price_of
from raydist.caption.prompt import Prompt
from raydist.config import Config
from raydist.errors import UsageError
from raydist.models.lengths import TextLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked of whom, resolved from the settings."""

    access: Access
    origin: str
    prompt: Prompt
    limit: TextLimit
    price: Price | None
    sending: Sending


def resolve(config: Config, *, to_ask: bool) -> Job:
    """Look everything up before anything begins."""
    section = config.caption
    model = section.model or providers.DEFAULT_MODELS.get(section.provider, "")
    access = Access(provider=section.provider, model=model, base_url=section.base_url, timeout_s=section.timeout_s)
    _refuse_contradictions(config)
    if section.provider == "local":
        require_local(model, section.device, len(section.details))
    else:
        providers.require(access, to_ask=to_ask)
    limit = choice.text_limit(config.require_archive(), config.embed.model)
    prompt = Prompt(
        hints=section.hints, details=section.details, room=limit.room, send=section.send, frames=section.frames
    )
    price = None if section.provider == "local" else price_of(model, section.prices)
    if price is not None and section.batch_api:
        price = price.halved()
    if section.max_cost and price is None:
        raise UsageError(
            f"caption.max_cost={section.max_cost:g}, and no price of {model!r} is known: add it to a TOML file and "
            "name that with --set caption.prices=FILE (docs/captions.md shows one)"
        )
    sending = Sending(
        send=section.send,
        frames=section.frames,
        frame_px=section.frame_px,
        max_bytes=providers.MAX_BYTES.get(section.provider, 1 << 30),
    )
    return Job(access=access, origin=providers.origin(access), prompt=prompt, limit=limit, price=price, sending=sending)


def _refuse_contradictions(config: Config) -> None:
    section = config.caption
    if section.send == "clip" and section.provider != "gemini":
        raise UsageError(
            f"caption.send=clip, and {section.provider} takes pictures: expected caption.send=frames, or gemini"
        )
    if section.batch_api and section.provider != "gemini":
        raise UsageError(f"caption.batch_api=true, and {section.provider} has none that is known here: expected gemini")
    if section.batch_api and section.max_cost and section.send == "clip":
        raise UsageError(
            "caption.max_cost with caption.batch_api and caption.send=clip: what a job of clips costs is known only "
            "afterwards; give --limit, or send frames"
        )
    if len(set(section.details)) < len(section.details):
        raise UsageError(f"caption.details={list(section.details)}: expected each of plain, brief, full once")
