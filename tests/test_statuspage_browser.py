"""The status page in a real Chromium: how it looks, that it refreshes itself, and its policy."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, Tab, chromium
from daemon import Daemon, running
from http_client import Running, serving
from status_site import Site, sites

from exporter.httpd import Request, Response, Route
from exporter.sampling import Fault

SURGE_SECONDS = 390  # into the second surge: rules fire
WIDTHS = (1440, 1000, 390, 320)
LEAST_CONTRAST = 4.5  # WCAG 2.2, level AA, for text

OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
# Lowest contrast of any text with what lies behind it, and the text.
CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("svg, script")) continue;
    const pair = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
    if (ratio < worst[0]) worst = [ratio, walk.currentNode.data];
  }
  return worst;
})()
"""


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node of eight in a surge, one of them lost two minutes ago."""
    with sites(tmp_path_factory.mktemp("site")) as site:
        site.run(SURGE_SECONDS - 120)
        site.faults[5] = Fault.LOST
        site.run(120)
        yield site


@pytest.fixture(name="server", scope="module")
def _server(site: Site) -> Iterator[Running]:
    with serving(site.routes()) as server:
        yield server


def url(server: Running) -> str:
    """Return the page's address."""
    return f"http://127.0.0.1:{server.port}/"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_and_can_be_read(
    browser: Browser, server: Running, width: int, dark: bool, tmp_path: Path
) -> None:
    """No sideways scroll, no complaint in the console, contrast, the right colours, whole picture.

    With one GPU lost and rules that fire, as the picture in the folder of the test shows.
    """
    tab = Tab(browser, url(server), width=width, dark=dark)
    assert tab.evaluate(OVERFLOW) <= 0
    ratio, text = tab.evaluate(CONTRAST)
    assert ratio >= LEAST_CONTRAST, text
    red, *_ = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
    assert (int(red) < 128) == dark
    picture = tab.picture()
    (tmp_path / "page.png").write_bytes(picture)
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">I", picture[16:20]) == (width,)
    assert tab.complaints() == []


def test_what_is_wrong_stands_at_the_top(browser: Browser, server: Running) -> None:
    """The lost GPU first, then the rules that fire, each with its since; seen without scrolling."""
    tab = Tab(browser, url(server))
    problems = tab.evaluate("[...document.querySelectorAll('.problems li')].map(e => e.innerText)")
    lost = r"critical\nGPU 5 is lost: .*\n[12] min( \d+ s)?, since \d\d:\d\d:\d\d"
    assert re.fullmatch(lost, problems[0].replace("\u00a0", " "))
    assert "GpuMemoryHigh fires on GPU" in problems[1]
    assert "GpuSustainedLoad fires on GPU" in problems[2]
    assert tab.evaluate("document.querySelector('.problems').getBoundingClientRect().bottom < 400")
    assert tab.evaluate("document.title").startswith("3 problems")
    assert "simulated" in tab.text("#simulated")
    # The graph of a GPU that is over its threshold is coloured there, by the same path.
    assert tab.evaluate("document.querySelectorAll('use.o').length") > 4
    assert tab.evaluate("[...document.querySelectorAll('use')].every(u => u.getBBox().width > 0)")


def test_page_reads_the_same_without_javascript(browser: Browser, server: Running) -> None:
    """All of it is in the document; it has itself loaded again, and there is no dead button."""
    with_script, without = Tab(browser, url(server)), Tab(browser, url(server), javascript=False)
    assert without.text("main") == with_script.text("main")
    assert len(without.text("main")) > 1000
    refresh = "document.querySelector('meta[http-equiv=refresh]')?.content"
    assert without.evaluate(refresh) == "10"
    assert with_script.evaluate(refresh) is None
    assert without.evaluate("document.getElementById('pause').checkVisibility()") is False
    assert without.complaints() == []


def test_page_refreshes_itself_and_keeps_its_place(
    browser: Browser, site: Site, server: Running
) -> None:
    """New readings come by themselves; the elements, the focus and the scroll stay."""
    tab = Tab(browser, url(server), height=500)
    tab.evaluate("window.mark = document.querySelector('.gpus tbody tr'); window.scrollTo(0, 300)")
    tab.evaluate("document.querySelector('nav a').focus({preventScroll: true})")
    before = tab.text("header time")
    site.run(3)
    tab.until(lambda: None if tab.text("header time") == before else True)
    assert tab.evaluate("window.mark === document.querySelector('.gpus tbody tr')")
    assert tab.evaluate("[document.activeElement.getAttribute('href'), scrollY]") == [
        "/metrics",
        300,
    ]
    assert tab.complaints() == []


def test_keyboard_reaches_everything(browser: Browser, site: Site, server: Running) -> None:
    """Tab goes through links and button, each with a visible focus; Pause holds the page still."""
    tab = Tab(browser, url(server))
    seen = []
    for _ in range(4):
        tab.press("Tab", 9)
        seen.append(tab.evaluate("document.activeElement.innerText"))
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen == ["/metrics", "JSON", "/-/ready", "Pause"]
    tab.evaluate("document.activeElement.click()")
    assert tab.text("#pause") == "Resume"
    before = tab.text("header time")
    asked = len(tab.requests())
    site.run(2)
    tab.evaluate("new Promise((done) => setTimeout(done, 2500))")
    assert (tab.text("header time"), len(tab.requests())) == (before, asked)
    tab.evaluate("document.activeElement.click()")
    tab.until(lambda: None if tab.text("header time") == before else True)


def test_silent_exporter_is_told(browser: Browser, site: Site) -> None:
    """When nothing answers any more the page says so, and that what it shows is old; then not."""
    is_ill = False
    (page,) = (route for route in site.routes() if route.path == "/")

    def sometimes(request: Request) -> Response:
        return Response(503, b"no\n") if is_ill else page.handler(request)

    with serving([Route("/", ("GET",), sometimes)]) as server:
        tab = Tab(browser, url(server))
        is_ill = True
        shown = "document.getElementById('lost').checkVisibility()"
        tab.until(lambda: tab.evaluate(shown) or None)
        assert "has not answered" in tab.text("#lost")
        assert tab.evaluate("document.querySelector('main').className") == "old"
        is_ill = False
        tab.until(lambda: None if tab.evaluate(shown) else True)
        assert tab.evaluate("document.querySelector('main').className") == ""


def test_policy_admits_nothing_else(browser: Browser, server: Running) -> None:
    """A script, a style, an image, a frame or a request elsewhere does not get through."""
    tab = Tab(browser, url(server))
    tab.evaluate(
        """
        (() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          const image = new Image();
          image.src = "http://127.0.0.1:9/x.png";
          const style = document.createElement("style");
          style.textContent = "body { margin-left: 77px }";
          const button = document.createElement("button");
          button.setAttribute("onclick", "window.ran = true");
          document.body.append(script, image, style, button);
          button.click();
        })()
        """
    )
    refused = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
    assert tab.evaluate(refused) == "refused"
    assert tab.evaluate("window.ran") is None
    assert tab.evaluate("getComputedStyle(document.body).marginLeft") != "77px"
    complaints = str(tab.complaints())
    for directive in ("script-src", "style-src", "img-src", "connect-src"):
        assert directive in complaints
    assert {asked for asked in tab.requests() if not asked.startswith(url(server))} <= {
        "http://127.0.0.1:9/x.png",
        "http://127.0.0.1:9/",
    }


@pytest.fixture(name="demo", scope="module")
def _demo() -> Iterator[Daemon]:
    with running("--simulate") as daemon:
        yield daemon


def test_running_demo_updates_and_asks_only_itself(browser: Browser, demo: Daemon) -> None:
    """The real daemon: pages follow each other without a complaint, and nothing else is asked."""
    address = f"http://127.0.0.1:{demo.port}/"
    tab = Tab(browser, address)
    assert "8 × NVIDIA H100" in tab.text("header p")
    first = tab.text("header time")
    second = tab.until(lambda: None if (time := tab.text("header time")) == first else time)
    tab.until(lambda: None if tab.text("header time") in (first, second) else True)
    assert set(tab.requests()) == {address}
    assert tab.complaints() == []
