"""The page of `fashion demo` in a real browser, with the models of this project: `make test-browser`.

With PICTURES=reports/demo in the environment, it leaves the pictures of the page that the README shows in that folder.
"""

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fashion.data import dataset
from fashion.serving import preprocessing
from tests.conftest import ROOT, served_demo

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
GIVE = """([event, pictures]) => {
    const data = new DataTransfer();
    for (const picture of pictures) {
        const bytes = Uint8Array.from(atob(picture), character => character.charCodeAt(0));
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
BRIGHTNESS = """picture => {
    const pen = Object.assign(document.createElement("canvas"), {width: 28, height: 28}).getContext("2d");
    pen.drawImage(picture, 0, 0, 28, 28);
    const reds = pen.getImageData(0, 0, 28, 28).data.filter((_, i) => i % 4 === 0);
    return reds.reduce((sum, red) => sum + red, 0) / (255 * reds.length);
}"""
SAME_THUMBNAILS = "let state = 1; Math.random = () => (state = (state * 16807) % 2147483647) / 2147483647"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served_demo(ROOT, os.environ) as address:
        yield address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for pictures of the page."""
    return ROOT / os.environ["PICTURES"] if "PICTURES" in os.environ else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, f"no browser; install one of {', '.join(BROWSERS)}, on Debian with `apt-get install chromium`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # it runs as root in CI
        yield browser
        browser.close()


@pytest.fixture(params=["desk"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Return the page, on a desk unless a test says otherwise; what it asks of others fails the test."""
    phone = request.param == "phone"
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1100, "height": 900},
        has_touch=phone,
        color_scheme="dark" if request.param == "dark" else "light",
    )
    asked: list[str] = []
    complaints: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.add_init_script(SAME_THUMBNAILS)
    page.goto(address)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that holds test image 0, an ankle boot."""
    path = tmp_path_factory.mktemp("pictures") / "boot.png"
    Image.fromarray(dataset.load(ROOT / "data" / "test.npz").images[0]).save(path)
    return path


def expect_labels(page: Page, label: str) -> None:
    labels = page.locator("#models .label")
    expect(labels).to_have_count(2)
    for shown in labels.all():
        expect(shown).to_contain_text(label)


def test_a_picture_is_uploaded_and_answered(page: Page, boot: Path) -> None:
    page.set_input_files("#file", boot)
    expect_labels(page, "Ankle boot")
    expect(page.locator("#models h3")).to_contain_text(["cnn", "dnn"])
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"cnn: Ankle boot, \d"))
    expect(page.locator("#models .label").first).to_be_in_viewport(ratio=1)
    expect(page.locator(".bars tr")).to_have_count(20)
    expect(page.locator(".first th")).to_have_text(["Ankle boot", "Ankle boot"])
    expect(page.locator(".nearest li")).to_have_count(10)
    expect(page.locator(".unsure:visible")).to_have_count(0)
    for picture in page.locator("#result img:visible").all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    widths = page.locator(".bars .bar").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert max(widths[:10]) == widths[9] > 10 * min(widths[:10])


def test_a_photograph(page: Page, pictures: Path) -> None:
    page.set_input_files("#file", ROOT / "tests" / "photos" / "shirt-patterned.jpg")
    expect_labels(page, "Shirt")
    expect(page.locator("#given")).to_be_visible()
    page.screenshot(path=pictures / "desk.png", full_page=True)


def test_garbage_is_told_and_the_next_picture_answered(page: Page, boot: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "letter.png")
    problem = page.get_by_role("alert")
    expect(problem).to_have_text("letter.png: not a picture, or in another format; PNG, JPEG and WebP are read")
    expect(page.locator("#result")).to_be_hidden()
    page.set_input_files("#file", boot)
    expect(problem).to_be_hidden()
    expect_labels(page, "Ankle boot")


def test_a_file_over_the_limit_is_not_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(preprocessing.MAX_BYTES + 1))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#file", tmp_path / "large.png")
    expect(page.get_by_role("alert")).to_contain_text("at most 33,554,432 are read")
    assert sent == []


def test_what_is_unlike_clothing_is_told(page: Page, tmp_path: Path) -> None:
    Image.effect_noise((28, 28), 200).save(tmp_path / "noise.png")
    page.set_input_files("#file", tmp_path / "noise.png")
    expect(page.locator(".unsure:visible")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("not sure")


def test_what_is_refused_can_be_asked_again_with_its_background(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), (60, 60, 60)).save(tmp_path / "cloth.png")
    page.set_input_files("#file", tmp_path / "cloth.png")
    expect(page.get_by_role("alert")).to_contain_text("say whether that is light or dark")
    page.locator("#background").select_option("light")
    expect(page.locator("#models .label")).to_have_count(2)


def test_the_background_can_be_told_after_the_picture(page: Page, boot: Path) -> None:
    page.set_input_files("#file", boot)
    expect_labels(page, "Ankle boot")
    seen = page.locator("#seen").get_attribute("src")
    page.locator("#background").select_option("light")
    expect(page.locator("#seen")).not_to_have_attribute("src", str(seen))


def give(page: Page, event: str, pictures: list[bytes]) -> None:
    page.evaluate(GIVE, [event, [base64.b64encode(picture).decode() for picture in pictures]])


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Page, boot: Path, event: str) -> None:
    give(page, event, [boot.read_bytes()])
    expect_labels(page, "Ankle boot")


def test_several_files_at_once_are_told(page: Page, boot: Path) -> None:
    give(page, "drop", 2 * [boot.read_bytes()])
    expect(page.get_by_role("alert")).to_have_text("One picture at a time; these are 2 files.")


def test_pasted_text_is_told(page: Page) -> None:
    give(page, "paste", [])
    expect(page.get_by_role("alert")).to_contain_text("no picture file")


def test_a_drawing(page: Page) -> None:
    box = page.locator("#canvas").bounding_box()
    assert box
    page.locator("#background").select_option("light")  # of photographs, not of drawings
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    for dx, dy in ((60, 180), (110, 60), (160, 180), (160, 40), (60, 40)):
        page.mouse.move(box["x"] + dx, box["y"] + dy, steps=5)
    page.mouse.up()
    expect(page.locator("#models .label")).to_have_count(2)
    expect(page.locator("#given")).to_be_visible()
    drawn = page.locator("#canvas").evaluate(BRIGHTNESS)
    assert 0.05 < drawn < page.locator("#seen").evaluate(BRIGHTNESS) < 0.6  # cut out, and not taken for a background
    page.mouse.move(box["x"] - 20, box["y"] + 20)  # a press that begins elsewhere, and the right button, draw nothing
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


def test_what_is_refused_here_is_not_answered_by_an_older_question(page: Page, boot: Path, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(preprocessing.MAX_BYTES + 1))
    page.route("**/answer*", lambda _route: None)  # is not answered
    with page.expect_request("**/answer*"):
        page.set_input_files("#file", boot)
    with page.expect_event("requestfailed"):
        page.set_input_files("#file", tmp_path / "large.png")
    expect(page.get_by_role("alert")).to_contain_text("large.png: 33,554,433 bytes")
    expect(page.locator("#result")).to_be_hidden()


def test_the_server_is_gone(page: Page) -> None:
    page.route("**/test/*", lambda route: route.abort())
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_contain_text("is `fashion demo` still running?")


def test_keyboard_alone(page: Page, boot: Path) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outlined = "document.activeElement.closest('.drop') ?? document.activeElement"
                assert page.evaluate(f"getComputedStyle({outlined}).outlineStyle") == "solid", "the focus must be seen"
                return
        pytest.fail(f"no way to {selector} by the keyboard")

    page.once("filechooser", lambda chooser: chooser.set_files(boot))
    tab_to("#file")
    page.keyboard.press("Enter")
    expect_labels(page, "Ankle boot")
    tab_to("#thumbnails button")
    page.keyboard.press("Enter")
    expect(page.locator("#actual")).to_contain_text("It is: ")
    tab_to("#index")
    page.keyboard.press("Control+a")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.locator("#actual")).to_have_text("It is: Pullover")


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_on_a_phone(page: Page, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "letter.png")
    expect(page.get_by_role("alert")).to_be_in_viewport(ratio=1)
    page.locator("#thumbnails button").first.tap()
    expect(page.locator("#models .label")).to_have_count(2)
    expect(page.locator("#models .label").first).to_be_in_viewport(ratio=1)
    for selector in ("#index", "#pick button"):  # none covers another
        assert page.locator(selector).first.evaluate(ON_TOP), selector
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=pictures / "phone.png", full_page=True)


@pytest.mark.parametrize("page", ["dark"], indirect=True)
def test_in_the_dark(page: Page) -> None:
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#actual")).to_have_text("It is: Ankle boot")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 28)"
