"""asks: pictures and requests for tests of providers."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest
from PIL import Image

from raydist.caption.asking import Ask, AskError, Media, Provider

KEY = "sk-test-4ever+secret/="


def picture(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG unlike that of any other number."""
    data = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256 % 256, 90)).save(data, "JPEG")
    return data.getvalue()


def asked(number: int = 0, *, frames: int = 2, captions: int = 1, clip: bytes = b"", words: str = "Tell.") -> Ask:
    """A request about clip `number`."""
    shown = () if clip else tuple(picture(number * 10 + frame) for frame in range(frames))
    media = Media(frames=shown, clip=clip, width_px=64, height_px=48, duration_s=2.0)
    return Ask(name=f"v{number}.mp4#t=0,2", media=media, words=words, captions=captions, max_tokens=200)


def fails(provider: Provider, ask: Ask | None = None) -> AskError:
    """The error of a request that must fail."""
    with pytest.raises(AskError) as caught:
        provider.ask(ask or asked())
    return caught.value


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run it in so many threads at once; what they raised."""
    raised: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - told to the test
            raised.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised
