"""The page in a real browser without a screen: drawn, coloured, not wider than a phone, and no script runs."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from report_runs import write_all

from largeconcept.eval.report.page import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here")
    return found


def run(browser: str, folder: Path, page: Path, *flags: str) -> str:
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(browser: str, folder: Path, page: Path, width: int, height: int, *flags: str) -> np.ndarray:
    file = folder / "shot.png"
    run(browser, folder, page, f"--window-size={width},{height}", f"--screenshot={file}", *flags)
    return read_png(file)


def read_png(file: Path) -> np.ndarray:
    """Return (H, W, 3) of a PNG file with 8 bits a channel."""
    data, place, chunks = file.read_bytes(), 8, {}
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks[kind] = chunks.get(kind, b"") + data[place + 8 : place + 8 + size]
        place += 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8 and colour in (2, 6)
    channels = 3 if colour == 2 else 4
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    out = np.zeros((height, width * channels), np.uint8)
    above = np.zeros(width * channels, np.uint8)
    for row, line in enumerate(lines):
        out[row] = above = _unfiltered(int(line[0]), line[1:], above, channels)
    return out.reshape(height, width, channels)[..., :3]


def _unfiltered(kind: int, line: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    if kind == 0:
        return line
    if kind == 1:
        return np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return line + above
    out, before = line.tolist(), above.tolist()
    for i in range(len(out)):
        a, up, c = (out[i - step], before[i], before[i - step]) if i >= step else (0, before[i], 0)
        if kind == 3:
            guess = (a + up) >> 1
        else:
            to_a, to_up, to_c = abs(up - c), abs(a - c), abs(a + up - 2 * c)
            guess = a if to_a <= to_up and to_a <= to_c else up if to_up <= to_c else c
        out[i] = (out[i] + guess) & 255
    return np.array(out, np.uint8)


def share(image: np.ndarray, colour: str, tolerance: int = 12) -> float:
    """Return the share of pixels that are nearly of a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(image.astype(int) - wanted).max(axis=-1) <= tolerance).mean())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report([write_all(folder / "runs", hostile=True)], folder / "report.html")


def test_the_page_is_drawn_in_its_colours(browser, page, tmp_path):
    image = screenshot(browser, tmp_path, page, 1200, 5000)
    assert image.shape == (5000, 1200, 3)
    assert share(image, "#ffffff") > 0.3 and share(image, "#f4f6f9") > 0.05  # cards on the page's ground
    for colour in ("#2563c9", "#c2410c", "#2253c4", "#1b2028"):  # two series, the badge of the best, text
        assert share(image, colour) > 1e-4, colour
    for top in range(0, 4000, 1000):  # no part is blank
        assert len(np.unique(image[top : top + 1000].reshape(-1, 3), axis=0)) > 50


def test_a_dark_page_where_that_is_wanted(browser, page, tmp_path):
    image = screenshot(
        browser, tmp_path, page, 1000, 1500, "--blink-settings=preferredColorScheme=0", "--force-dark-mode"
    )
    assert share(image, "#171c23") > 0.2 and share(image, "#ffffff") < 0.01


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_not_wider_than_the_window(browser, page, tmp_path, width):
    measuring = page.read_text(encoding="utf-8")
    measuring = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", measuring, count=1)
    frame = tmp_path / "frame.html"
    (tmp_path / "inner.html").write_text(
        measuring.replace("</body>", "<script>document.title = document.documentElement.scrollWidth</script></body>"),
        encoding="utf-8",
    )
    # A window cannot be narrower than some 500 pixels, a frame can.
    frame.write_text(
        f"<!DOCTYPE html><iframe src='inner.html' style='border:0;width:{width}px;height:900px' "
        'onload="document.title = this.contentDocument.title"></iframe>'
    )
    dom = run(browser, tmp_path, frame, "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=4000",
              "--window-size=1400,1000")  # fmt: skip
    found = re.search(r"<title>(\d+)</title>", dom)
    assert found is not None, dom[:500]
    assert int(found[1]) <= width


def test_no_script_of_a_text_runs(browser, page, tmp_path):
    dom = run(browser, tmp_path, page, "--dump-dom", "--virtual-time-budget=2000")
    assert "<title>Evaluation report</title>" in dom
    assert "<script" not in dom and "evil.example" in dom  # as text alone
    assert not re.search(r"<[^>]+(src|onerror|onload)=", dom)
