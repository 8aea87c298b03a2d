"""bench browser: what a person sees of a run in TensorBoard, in a real browser.

Answers: do the curves, the hyper-parameters and the retrieved strips really appear, and what do they look like?

    python tests/benchmarks/browser.py --logdir ARCHIVE/runs/NAME/tensorboard --out shots
    python tests/benchmarks/browser.py --out shots          a made-up run, which tries the pages and the pictures

Starts TensorBoard on a free port of this machine and Chromium without a window, opens the pages and saves what they
show. Prints one JSON line of what was found; the exit code is 1 where a curve or a picture is missing or a request
failed, 77 where there is no Chromium (`apt-get install chromium`) or no playwright (`pip install playwright`).
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from raydist.clips.resize import resize_frames  # noqa: E402
from raydist.demo import clip  # noqa: E402
from raydist.demo.words import caption, held_out_combinations  # noqa: E402
from raydist.metrics import Retrieval  # noqa: E402
from raydist.train.tensorboard import Board, Retrieved  # noqa: E402

SKIPPED = 77
WIDTH = 1600
CURVES = (
    "loss/train",
    "loss/val",
    "optimiser/learning_rate",
    "optimiser/temperature",
    "optimiser/gradient_norm",
    "speed/samples_per_s",
    "speed/data_wait",
    *(f"text_to_video/{figure}" for figure in ("top1", "top5", "top10", "median_rank")),
    *(f"video_to_text/{figure}" for figure in ("top1", "top5", "top10", "median_rank")),
)
PICTURES = ("confirmation/retrieved", "confirmation/similarity")
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run")
_RELOAD_S = 1
_DRAWN_PX = 20
"""Width of a chart in which at least its line must be seen."""


@dataclass
class Seen:
    """What the pages showed."""

    files: list[str] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)
    """Charts in which a line is drawn."""
    pictures: list[str] = field(default_factory=list)
    """Those that the browser decoded, with their sizes."""
    failed: list[str] = field(default_factory=list)
    """Requests that got no answer or an error."""


def main() -> None:
    """Look and print one JSON line."""
    options = argparse.ArgumentParser()
    options.add_argument("--logdir", type=Path, help="the archive's runs, or one's folder; none: a made-up run")
    options.add_argument("--out", type=Path, required=True, help="folder of the screenshots")
    given = options.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        skip("no chromium on this machine: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip("playwright is not installed: pip install playwright")
    given.out.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    with tempfile.TemporaryDirectory() as place:
        if given.logdir is None:
            write_made_up(Path(place) / "made-up")
        with tensorboard(given.logdir or Path(place)) as address, sync_playwright() as playwright:
            window = playwright.chromium.launch(executable_path=browser, args=list(QUIET))
            for look in (look_at_curves, look_at_pictures, look_at_others):
                page = window.new_page(viewport={"width": WIDTH, "height": 1000})
                page.on("requestfailed", lambda request: seen.failed.append(request.url))
                page.on("response", lambda answer: seen.failed.extend([answer.url] * (answer.status >= 400)))
                look(page, address, given.out, seen)
            version = window.version
            window.close()
    missing = [curve for curve in CURVES if curve not in seen.curves]
    missing += [picture for picture in PICTURES if not any(picture in found for found in seen.pictures)]
    figures = {"bench": "browser", "missing": missing, **asdict(seen), "browser": f"Chromium {version}"}
    print(json.dumps(figures | {"machine": platform.machine(), "python": platform.python_version()}))
    if missing or seen.failed:
        raise SystemExit(1)


def skip(reason: str) -> None:
    """End with the exit code that means: nothing was tried."""
    print(f"skipped: {reason}", file=sys.stderr)
    raise SystemExit(SKIPPED)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """The address of a TensorBoard that serves the folder."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    command += ["--load_fast=false", "--samples_per_plugin", "images=1000", "--reload_interval", str(_RELOAD_S)]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as server:
        try:
            address = _address(server, said)
            _wait_for_curves(address)
            yield address
        finally:
            server.terminate()


def _address(server: subprocess.Popen[bytes], said: Any) -> str:
    for _ in range(300):
        time.sleep(0.1)
        said.seek(0)
        text = said.read()
        found = re.search(r"http://127\.0\.0\.1:\d+/", text)
        if found:
            return found.group()
        if server.poll() is not None:
            break
    raise SystemExit(f"TensorBoard did not start:\n{text}")


def _wait_for_curves(address: str) -> None:
    """Until the server has read the files: a page that is opened before says that there is nothing, and stays so."""
    for _ in range(60):
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as answer:
            tags = {tag for run in json.load(answer).values() for tag in run}
        time.sleep(2 * _RELOAD_S)  # also for the rest of what it has begun to read
        if tags.issuperset(CURVES):
            return


def look_at_curves(page: Any, address: str, out: Path, seen: Seen) -> None:
    """All curves on one tall page."""
    page.set_viewport_size({"width": WIDTH, "height": 3200})  # cards out of sight are not drawn
    page.goto(f"{address}#timeseries")
    page.locator("button[data-value=scalars]").click(timeout=90_000)
    page.get_by_text("Enable step selection and data table").first.click()
    page.get_by_label("Toggle settings side pane").first.click()
    page.locator("scalar-card").first.wait_for(timeout=90_000)
    for group in dict.fromkeys(curve.split("/")[0] for curve in CURVES):  # all but the first two are folded
        title = page.locator(f'.group-title[title="{group}"]').first
        if title.count() and not page.locator(f'scalar-card [title^="{group}/"]').count():
            title.click()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(4000)  # lines are animated
    for card in page.locator("scalar-card").all():
        name = card.locator("tb-truncated-path").first.get_attribute("title")
        if name in CURVES and _has_line(card.locator("line-chart").first.screenshot()):
            seen.curves.append(name)
    boxes = [card.bounding_box() for card in page.locator("scalar-card").all()]
    height = min(3200, max(box["y"] + box["height"] for box in boxes) + 20)
    page.screenshot(path=str(out / "curves.png"), clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    seen.files.append("curves.png")


def _has_line(screenshot: bytes) -> bool:
    """Whether the first run's dark blue is seen in enough columns; axes and letters are grey."""
    pixels_HWC = np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB")).astype(int)
    blue = (pixels_HWC[..., 2] - pixels_HWC[..., 0] > 20) & (pixels_HWC[..., 0] < 120)
    return int(blue.any(axis=0).sum()) >= _DRAWN_PX


def look_at_pictures(page: Any, address: str, out: Path, seen: Seen) -> None:
    """The retrieved strips at the last and at the first evaluation, and the map."""
    page.set_viewport_size({"width": WIDTH, "height": 3600})
    page.goto(f"{address}#images")
    loaders = page.locator("tf-image-loader")
    loaders.first.wait_for(timeout=90_000)
    page.get_by_text("Show actual image size").first.click()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    page.screenshot(path=str(out / "images.png"), clip={"x": 0, "y": 0, "width": WIDTH, "height": 1500})
    seen.files.append("images.png")
    for loader in loaders.all():
        name = "similarity" if "similarity" in loader.evaluate("it => it.tag") else "retrieved"
        for time_of in ("last", "first"):
            if time_of == "first":
                loader.locator("paper-slider").evaluate("it => { it.value = it.min; }")
                page.wait_for_load_state("networkidle")
                page.wait_for_timeout(1000)
            size = loader.locator("img").first.evaluate("it => [it.complete, it.naturalWidth, it.naturalHeight]")
            if size[0] and size[1]:
                seen.pictures.append(f"confirmation/{name} {time_of} {size[1]}x{size[2]}")
            loader.screenshot(path=str(out / f"{name}-{time_of}.png"))
            seen.files.append(f"{name}-{time_of}.png")


def look_at_others(page: Any, address: str, out: Path, seen: Seen) -> None:
    """Charts with several curves, hyper-parameters, texts."""
    for name in ("custom_scalars", "hparams", "text"):
        page.goto(f"{address}#{name}")
        page.wait_for_timeout(1000)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(3000)
        page.screenshot(path=str(out / f"{name}.png"))
        seen.files.append(f"{name}.png")


def write_made_up(folder: Path, clips: int = 60, steps: int = 400) -> None:
    """A run as it might go: similarities of right pairs grow out of the noise, and everything follows from them."""
    random = np.random.default_rng(0)
    shown = held_out_combinations()[:: max(1, len(held_out_combinations()) // clips)][:clips]
    films = [clip.render(one, 0) for one in shown]
    eights = [film[np.linspace(0, len(film) - 1, 8).astype(int)] for film in films]
    strips = [resize_frames(frames, 64, "viclip") for frames in eights]
    noise = random.normal(0.2, 0.05, (clips, clips))
    board = Board(folder)
    board.hyper_parameters({"model": "tiny", "train": {"batch": 64, "epochs": 50, "learning_rate": 1e-4, "rank": 32}})
    for step in range(steps + 1):
        learnt = 1 - np.exp(-step / 120)
        rate = 1e-4 * min(1, step / 20) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        loss = 3.6 - 2.6 * learnt + random.normal(0, 0.12)
        if step:
            board.step(
                step,
                loss=loss,
                learning_rate=rate,
                temperature=0.01,
                samples_per_s=random.normal(148, 5),
                data_wait=random.uniform(0.005, 0.03),
                gradient_norm=1.6 * np.exp(-step / 150) + random.uniform(0.1, 0.3),
            )
        if step % 20 == 0:
            similarity_VT = noise + 0.22 * learnt * np.eye(clips)
            rank_of = [(1 + (sim > sim[place]).sum()) for place, sim in enumerate(similarity_VT.T)]
            back = [(1 + (sim > sim[place]).sum()) for place, sim in enumerate(similarity_VT)]
            board.evaluation(step, loss=3.7 - 2.3 * learnt, text_to_video=summary(rank_of), video_to_text=summary(back))
            rows = []
            for text in range(6):
                order = np.argsort(-similarity_VT[:, text])[:3]
                rows.append(
                    Retrieved(
                        caption=caption(shown[text]),
                        strips=[strips[place] for place in order],
                        right=[bool(place == text) for place in order],
                        scores=[float(similarity_VT[place, text]) for place in order],
                        rank=int(rank_of[text]),
                        candidates=clips,
                    )
                )
            board.confirmation(step, rows)
            board.similarity(step, similarity_VT)
    board.final({"before": 1.7, "after": 95.0})
    board.close()


def summary(ranks: list[Any]) -> Retrieval:
    ranks_Q = np.array(ranks)
    shares = [100 * float((ranks_Q <= count).mean()) for count in (1, 5, 10)]
    return Retrieval(
        r1=shares[0], r5=shares[1], r10=shares[2], median_rank=float(np.median(ranks_Q)), queries=len(ranks_Q)
    )


if __name__ == "__main__":
    main()
