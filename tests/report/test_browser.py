"""The HTML report and MLflow's own pages of the same runs, in a real Chromium without a window."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from diffgap.report.html.page import to_html
from diffgap.tracking.reader import Reader

webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1480,1000",
)

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="no browser: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, report, tmp_path):
    """The report of real sweeps, opened from disk."""
    path = tmp_path / "report.html"
    path.write_text(to_html(report), encoding="utf-8")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    return browser


def until(browser, condition, seconds=30):
    """What a function of the browser gives as soon as that is something."""
    return WebDriverWait(browser, seconds, 0.2).until(condition)


def css(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def keep(browser, name):
    """A screenshot, for those who ask for some, in 256 colours."""
    if place := os.environ.get("DIFFGAP_SCREENSHOTS"):
        from PIL import Image

        shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        Path(place).mkdir(parents=True, exist_ok=True)
        shot.quantize(256).save(Path(place) / name, optimize=True)


def table(browser, key):
    return browser.find_element(By.CSS_SELECTOR, f'table[data-key="{key}"]')


def figures(element, column):
    """The text of a column's cells, from the top."""
    rows = element.find_elements(By.CSS_SELECTOR, "tbody.ours tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[column].text for row in rows]


def addresses(browser):
    """What the browser has asked for since its log was last read."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_page_is_whole_and_asks_for_nothing(page, report):
    images = css(page, "img")
    assert len(images) == len(report.pictures) > 0
    widths = page.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert all(widths)
    requested = addresses(page)
    assert any(address.startswith("file:") for address in requested)
    local = ("file:", "data:", "chrome:")  # the last are of the tab that the browser began with
    assert [a for a in requested if not a.startswith(local)] == []
    assert page.get_log("browser") == []
    wide, seen = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= seen


def test_headings_sort(page):
    element = table(page, "ablation-ablation")
    heading = css(element, "thead th")[2]
    button = heading.find_element(By.TAG_NAME, "button")
    order = figures(element, 2)
    numbers = sorted((float(text.split()[0]) for text in order), reverse=True)
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in figures(element, 2)] == numbers
    button.send_keys(Keys.ENTER)  # as the mouse does
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in figures(element, 2)] == numbers[::-1]
    button.click()
    assert heading.get_attribute("aria-sort") is None
    assert figures(element, 2) == order
    css(element, "thead button")[0].click()
    assert figures(element, 0) == sorted(figures(element, 0), key=str.lower)


def test_published_rows_stay_apart(page):
    element = table(page, "ablation-ablation")
    page.execute_script(
        "const part = document.createElement('tbody');"
        "part.append(arguments[0].tBodies[0].rows[0]); arguments[0].append(part);",
        element,
    )
    last = element.find_elements(By.CSS_SELECTOR, "tbody:last-child tr")
    for _ in range(2):
        css(element, "thead button")[2].click()
        assert element.find_elements(By.CSS_SELECTOR, "tbody:last-child tr") == last


def test_cells_show_their_runs(page, report):
    ablation = next(t for t in report.tables if t.key == "ablation-ablation")
    row, trials = ablation.rows[1], report.trials
    panel = page.find_element(By.ID, "panel")
    assert not panel.is_displayed()
    cells = css(table(page, ablation.key), "tbody tr:nth-child(2) td .cell")
    cells[0].click()
    assert panel.is_displayed()
    assert row.name in panel.text
    assert row.values[0].text in panel.text
    for signature in row.runs:
        trial = trials[signature]
        value = trial.metrics["test/text_to_audio/R1"]
        facts = (trial.run_id, signature, trial.label, trial.config["git_commit"])
        for text in (*facts, f"diffgap rerun {signature}", "finished", f"{value:.5g}"):
            assert text in panel.text
    page.execute_script(
        "arguments[0].scrollIntoView()", page.find_element(By.ID, "table-" + ablation.key)
    )
    keep(page, "report.png")
    page.find_element(By.ID, "close").click()
    assert not panel.is_displayed()


def test_cells_open_by_keyboard(page):
    """Tab enters the cells of a table, arrows move, Enter opens, Escape closes and goes back."""
    element = table(page, "ablation-ablation")
    css(element, "thead button")[-1].send_keys(Keys.TAB)
    assert page.switch_to.active_element == css(element, ".cell")[0]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN):
        page.switch_to.active_element.send_keys(key)
    here = page.switch_to.active_element
    assert here == css(element, "tbody tr:nth-child(2) td .cell")[0]
    here.send_keys(Keys.ENTER)
    panel = page.find_element(By.ID, "panel")
    assert panel.is_displayed()
    assert here.text in panel.text
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not panel.is_displayed()
    assert page.switch_to.active_element == here


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(page, scheme):
    """Nothing but tables is wider than the screen; dark on light by day, the reverse by night."""
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") == 390
        css(table(page, "methods-methods"), "td .cell")[-1].click()
        assert page.find_element(By.ID, "panel").is_displayed()
        look = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        ink, paper = (sum(map(int, re.findall(r"\d+", c))) for c in page.execute_script(look))
        assert (ink > paper) == (scheme == "dark")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module")
def dashboard(demo, tmp_path_factory):
    """The address of `diffgap ui` over the demo's runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "diffgap", "ui", "--port", str(port), "--output", str(demo)]
    environment = {**os.environ, "MLFLOW_WORKERS": "1"}
    log = tmp_path_factory.mktemp("ui") / "log"
    with log.open("w") as log_file:
        server = subprocess.Popen(
            command, stdout=log_file, stderr=log_file, env=environment, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(address, server, log):
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.3)
    pytest.fail(f"diffgap ui does not answer:\n{log.read_text()}")


def test_mlflow_shows_a_sweep_and_its_trials(browser, dashboard, demo):
    sweep = Reader(demo).sweep("ablation")
    trial = sweep.trials[-1]
    runs = f"{dashboard}/#/experiments/{sweep.experiment_id}/runs"
    browser.get(runs)
    cell = f"//div[@role='gridcell'][.//a[contains(@href, '{sweep.run_id}')]]"
    link = until(browser, lambda b: b.find_element(By.XPATH, f"{cell}//a"), 60)
    assert link.text == "ablation"
    _close_assistant(browser)
    for unseen in sweep.trials:
        assert not css(browser, f"[role='gridcell'] a[href*='{unseen.run_id}']")
    until(browser, lambda b: b.find_element(By.XPATH, f"{cell}//button")).click()
    for child in sweep.trials:
        links = until(
            browser, lambda b, c=child: css(b, f"[role='gridcell'] a[href*='{c.run_id}']")
        )
        assert links[0].text == child.label
    keep(browser, "mlflow.png")

    browser.get(f"{runs}/{trial.run_id}")
    name = "test/text_to_audio/R5"
    until(browser, lambda b: name in _text(b))
    assert f"{trial.metrics[name]:.2f}".rstrip("0").rstrip(".") in _text(browser)
    assert trial.signature in _text(browser)

    browser.get(f"{runs}/{trial.run_id}/artifacts/bridge/metrics.json")
    until(browser, lambda b: "bridge/metrics.json" in _text(b) and name in _text(b))


def _text(browser):
    return browser.execute_script("return document.body.innerText")


def _close_assistant(browser):
    """MLflow's own chat, which covers a third of the page."""
    for button in css(browser, "button[data-component-id='mlflow.assistant.chat_panel.close']"):
        button.click()
