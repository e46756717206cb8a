"""The page of `fashion demo` in a browser, with the models of this project: `make test-browser`.

With SCREENSHOTS=reports/demo in the environment, the screenshots for the README are saved in that folder.
"""

import base64
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fashion.data import dataset, images
from fashion.params import load_params
from fashion.serving import app
from tests.conftest import MODELS, ROOT, served_demo
from tests.test_demo import ResizeDemo, served

pytestmark = pytest.mark.browser
fashion_mnist = pytest.mark.skipif(
    load_params(ROOT / "params.yaml").dataset.name != "Fashion-MNIST", reason="expects predictions for Fashion-MNIST"
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DISPATCH = """([event, images]) => {
    const data = new DataTransfer();
    for (const image of images) {
        const bytes = Uint8Array.from(atob(image), character => character.charCodeAt(0));
        data.items.add(new File([bytes], `${data.items.length}.png`, {type: "image/png"}));
    }
    const options = {bubbles: true, cancelable: true};
    document.body.dispatchEvent(event === "drop"
        ? new DragEvent(event, {dataTransfer: data, ...options})
        : new ClipboardEvent(event, {clipboardData: data, ...options}));
}"""
ON_TOP = """element => {
    element.scrollIntoView();
    const {left, top, width, height} = element.getBoundingClientRect();
    return [0.1, 0.5, 0.9].every(x => document.elementFromPoint(left + x * width, top + height / 2) === element);
}"""
BRIGHTNESS = """image => {
    const context = Object.assign(document.createElement("canvas"), {width: 28, height: 28}).getContext("2d");
    context.drawImage(image, 0, 0, 28, 28);
    const reds = context.getImageData(0, 0, 28, 28).data.filter((_, i) => i % 4 === 0);
    return reds.reduce((sum, red) => sum + red, 0) / (255 * reds.length);
}"""
COLOUR = """image => {
    const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d");
    context.drawImage(image, 0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
FIXED_RANDOM = "let state = 1; Math.random = () => (state = (state * 16807) % 2147483647) / 2147483647"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served_demo(ROOT, os.environ) as address:
        yield address


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for screenshots."""
    return ROOT / os.environ["SCREENSHOTS"] if "SCREENSHOTS" in os.environ else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, f"no browser; install one of {', '.join(BROWSERS)}, on Debian with `apt-get install chromium`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # CI runs as root
        yield browser
        browser.close()


@pytest.fixture(params=["desktop"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Return the page, on a desktop by default."""
    with opened(browser, address, request.param) as page:
        yield page


@contextmanager
def opened(browser: Browser, address: str, device: str = "desktop") -> Iterator[Page]:
    """Open a page; an external request or a message on its console fails the test."""
    phone = device == "phone"
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1100, "height": 900},
        has_touch=phone,
        color_scheme="dark" if device == "dark" else "light",
    )
    urls: list[str] = []
    messages: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: urls.append(request.url))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("console", lambda message: messages.append(message.text))
    page.add_init_script(FIXED_RANDOM)
    page.goto(address)
    yield page
    context.close()
    assert [url for url in urls if not url.startswith((address, "data:", "blob:"))] == []
    assert [text for text in messages if not text.startswith("Failed to load resource")] == []


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of test image 0, an ankle boot."""
    path = tmp_path_factory.mktemp("images") / "boot.png"
    Image.fromarray(dataset.load(ROOT / "data" / "test").images[0, ..., 0]).save(path)
    return path


def expect_labels(page: Page, label: str) -> None:
    labels = page.locator("#models .label")
    expect(labels).to_have_count(len(MODELS))
    for found in labels.all():
        expect(found).to_contain_text(label)


@fashion_mnist
def test_upload(page: Page, boot: Path) -> None:
    page.set_input_files("#file", boot)
    expect_labels(page, "Ankle boot")
    expect(page.locator("#models h3")).to_have_text(list(MODELS))
    expect(page.get_by_role("status")).to_contain_text(re.compile(rf"{MODELS[0]}: Ankle boot, \d+\.\d%"))
    expect(page.locator("#models .label").first).to_be_in_viewport(ratio=1)
    expect(page.locator(".bars tr")).to_have_count(10 * len(MODELS))
    expect(page.locator(".first th")).to_have_text(["Ankle boot"] * len(MODELS))
    expect(page.locator(".nearest li")).to_have_count(5 * len(MODELS))
    expect(page.locator(".ood-warning:visible")).to_have_count(0)
    for image in page.locator("#result img:visible").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    widths = page.locator(".bars .bar").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert max(widths[:10]) == widths[9] > 10 * min(widths[:10])


@fashion_mnist
def test_photo(page: Page, screenshots: Path) -> None:
    page.set_input_files("#file", ROOT / "tests" / "photos" / "coat-denim.jpg")
    expect_labels(page, "Coat")
    expect(page.locator("#original")).to_be_visible()
    page.screenshot(path=screenshots / "desktop.png", full_page=True)


@fashion_mnist
def test_invalid_file(page: Page, boot: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "text.png")
    error = page.get_by_role("alert")
    expect(error).to_have_text("text.png: not a PNG, JPEG or WebP image")
    expect(page.locator("#result")).to_be_hidden()
    page.set_input_files("#file", boot)
    expect(error).to_be_hidden()
    expect_labels(page, "Ankle boot")


def test_file_too_large(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(images.MAX_BYTES + 1))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#file", tmp_path / "large.png")
    expect(page.get_by_role("alert")).to_contain_text("the limit is 33,554,432")
    assert sent == []


def test_out_of_distribution(page: Page, tmp_path: Path) -> None:
    Image.effect_noise((28, 28), 200).save(tmp_path / "noise.png")
    page.set_input_files("#file", tmp_path / "noise.png")
    expect(page.locator(".ood-warning:visible")).to_have_count(len(MODELS))
    expect(page.get_by_role("status")).to_contain_text("out of distribution")


@fashion_mnist
def test_background_after_error(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), (60, 60, 60)).save(tmp_path / "cloth.png")
    page.set_input_files("#file", tmp_path / "cloth.png")
    expect(page.get_by_role("alert")).to_contain_text("set the background to light or dark")
    page.locator("#background").select_option("light")
    expect(page.locator("#models .label")).to_have_count(len(MODELS))


@fashion_mnist
def test_background(page: Page, boot: Path) -> None:
    page.set_input_files("#file", boot)
    expect_labels(page, "Ankle boot")
    before = page.locator("#input").get_attribute("src")
    page.locator("#background").select_option("light")
    expect(page.locator("#input")).not_to_have_attribute("src", str(before))


def dispatch(page: Page, event: str, images: list[bytes]) -> None:
    page.evaluate(DISPATCH, [event, [base64.b64encode(image).decode() for image in images]])


@fashion_mnist
@pytest.mark.parametrize("event", ["drop", "paste"])
def test_drop_and_paste(page: Page, boot: Path, event: str) -> None:
    dispatch(page, event, [boot.read_bytes()])
    expect_labels(page, "Ankle boot")


def test_several_files(page: Page, boot: Path) -> None:
    dispatch(page, "drop", 2 * [boot.read_bytes()])
    expect(page.get_by_role("alert")).to_have_text("2 files; choose one at a time.")


def test_paste_text(page: Page) -> None:
    dispatch(page, "paste", [])
    expect(page.get_by_role("alert")).to_contain_text("No image file found")


@fashion_mnist
def test_drawing(page: Page) -> None:
    box = page.locator("#canvas").bounding_box()
    assert box
    page.locator("#background").select_option("light")  # applies to uploads only
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    for dx, dy in ((60, 180), (110, 60), (160, 180), (160, 40), (60, 40)):
        page.mouse.move(box["x"] + dx, box["y"] + dy, steps=5)
    page.mouse.up()
    expect(page.locator("#models .label")).to_have_count(len(MODELS))
    expect(page.locator("#original")).to_be_visible()
    drawn = page.locator("#canvas").evaluate(BRIGHTNESS)
    assert 0.05 < drawn < page.locator("#input").evaluate(BRIGHTNESS) < 0.6  # trimmed, not negated
    page.mouse.move(box["x"] - 20, box["y"] + 20)  # from outside, or with the right button, draws nothing
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 100, steps=5)
    page.mouse.up()
    page.mouse.click(box["x"] + 20, box["y"] + 20, button="right")
    assert page.locator("#canvas").evaluate(BRIGHTNESS) == drawn
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#result")).to_be_hidden()
    assert page.locator("#canvas").evaluate(BRIGHTNESS) == 0
    page.mouse.click(box["x"] + 100, box["y"] + 100)
    expect(page.locator("#result")).to_be_visible()


def test_error_cancels_pending_request(page: Page, boot: Path, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(images.MAX_BYTES + 1))
    page.route("**/predict*", lambda _route: None)  # never responds
    with page.expect_request("**/predict*"):
        page.set_input_files("#file", boot)
    with page.expect_event("requestfailed"):
        page.set_input_files("#file", tmp_path / "large.png")
    expect(page.get_by_role("alert")).to_contain_text("large.png: 33,554,433 bytes")
    expect(page.locator("#result")).to_be_hidden()


def test_server_stopped(page: Page) -> None:
    page.route("**/test/*", lambda route: route.abort())
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_contain_text("check that `fashion demo` is running")


@fashion_mnist
def test_keyboard(page: Page, boot: Path) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outlined = "document.activeElement.closest('.drop') ?? document.activeElement"
                assert page.evaluate(f"getComputedStyle({outlined}).outlineStyle") == "solid", (
                    "the focus must be visible"
                )
                return
        pytest.fail(f"{selector} cannot be reached with the keyboard")

    page.once("filechooser", lambda chooser: chooser.set_files(boot))
    tab_to("#file")
    page.keyboard.press("Enter")
    expect_labels(page, "Ankle boot")
    tab_to("#thumbnails button")
    page.keyboard.press("Enter")
    expect(page.locator("#actual")).to_contain_text("Actual: ")
    tab_to("#index")
    page.keyboard.press("Control+a")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.locator("#actual")).to_have_text("Actual: Pullover")


def test_colour(browser: Browser, tmp_path: Path) -> None:
    Image.new("RGB", (240, 200), (200, 100, 50)).save(tmp_path / "image.png")
    with served(app.application(ResizeDemo(channels=3))) as address, opened(browser, address) as page:
        for selector in ("#drawing", "#background"):
            expect(page.locator(selector)).to_be_hidden()
        sections = page.locator(".inputs section:visible").all()
        left, right = (section.bounding_box() for section in sections)
        assert left
        assert right
        assert left["width"] == right["width"] > 500
        page.set_input_files("#file", tmp_path / "image.png")
        expect(page.locator("#models .label")).to_have_count(1)
        assert page.locator("#input").evaluate(COLOUR) == [200, 100, 50]


def test_drawing_without_background(browser: Browser) -> None:
    with served(app.application(ResizeDemo(channels=1))) as address, opened(browser, address) as page:
        expect(page.locator("#background")).to_be_hidden()
        page.locator("#canvas").click()
        expect(page.locator("#models .label")).to_have_count(1)


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_phone(page: Page, screenshots: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "text.png")
    expect(page.get_by_role("alert")).to_be_in_viewport(ratio=1)
    page.locator("#thumbnails button").first.tap()
    expect(page.locator("#models .label")).to_have_count(len(MODELS))
    expect(page.locator("#models .label").first).to_be_in_viewport(ratio=1)
    for selector in ("#index", "#pick button"):  # nothing covers them
        assert page.locator(selector).first.evaluate(ON_TOP), selector
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=screenshots / "phone.png", full_page=True)


@fashion_mnist
@pytest.mark.parametrize("page", ["dark"], indirect=True)
def test_dark_mode(page: Page) -> None:
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#actual")).to_have_text("Actual: Ankle boot")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 28)"
