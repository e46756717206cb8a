"""The `fashion` command."""

import argparse
import json
import sys
from base64 import b64encode
from pathlib import Path

from fashion.data import FORMAT_LIST
from fashion.errors import UserError, print_error, run_command

BATCH_SIZE = 500  # images; large batches are fast, small ones show progress


def main() -> None:
    """Run the `fashion` command."""
    parser = argparse.ArgumentParser(prog="fashion", description="Train, evaluate, compare and serve the models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the pipeline and show the results",
        description="Run the stale stages, then print their durations and the results. `make` runs this command.",
    )
    run.set_defaults(command=run_pipeline)
    results = commands.add_parser(
        "results", help="print the results", description="Print a table with the results of each model."
    )
    results.add_argument("--json", action="store_true", help="print JSON instead of a table")
    results.add_argument("--root", type=Path, default=Path(), help="project folder (default: the current folder)")
    results.set_defaults(command=show_results)
    review = commands.add_parser(
        "review",
        help="compare the models of two revisions",
        description="Compare the models of two revisions, and print the review as Markdown.",
    )
    review.add_argument(
        "--base", metavar="REV", help="revision to compare with (default: the merge base with review.base_branch)"
    )
    review.add_argument("--head", metavar="REV", help="revision to review (default: the working tree)")
    review.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained HTML page")
    review.add_argument("--figures", type=Path, metavar="DIR", help="write the figures, and link them in the Markdown")
    review.add_argument(
        "--rebuild", action="store_true", help="run the pipeline of a commit again if its outputs are missing"
    )
    review.add_argument("--gate", action="store_true", help="exit with 1 if the gate fails")
    review.set_defaults(command=show_review)
    predict = commands.add_parser(
        "predict",
        help="classify images",
        description="Classify images. The exit code is 2 if an image cannot be classified.",
    )
    predict.add_argument("images", nargs="*", metavar="IMAGE", help=f"{FORMAT_LIST} file; - for standard input")
    predict.add_argument(
        "--test-index", type=int, action="append", default=[], metavar="N", help="a test image, from 0; repeatable"
    )
    predict.add_argument("--model", metavar="NAME", help="the model (default: the last one in params.yaml)")
    predict.add_argument(
        "--background", choices=["light", "dark"], help="background of the images (default: detected at their borders)"
    )
    predict.add_argument("--json", action="store_true", help="print one JSON object per line, one line per image")
    predict.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the model inputs with their predictions, as a PNG file"
    )
    predict.set_defaults(command=show_predictions)
    demo = commands.add_parser(
        "demo",
        help="try the models in a browser",
        description="Serve a web page for trying the models, on localhost only.",
    )
    demo.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any free port (default: 8000)")
    demo.set_defaults(command=show_demo)
    tune = commands.add_parser(
        "tune",
        help="search for better params of a model",
        description="Search the space declared under `tune` in params.yaml, on all cores or, with RAY_ADDRESS, "
        "on a cluster. Then train the best configurations and the current params with other seeds, and "
        "compare their validation accuracy. Run it again to resume an interrupted search.",
    )
    tune.add_argument("model", metavar="MODEL", help="a model in params.yaml")
    tune.add_argument("--trials", type=int, default=30, metavar="N", help="trials in the search (default: 30)")
    tune.add_argument("--hours", type=float, metavar="H", help="time limit of this run of the search")
    tune.add_argument("--fresh", action="store_true", help="start over instead of resuming an earlier search")
    tune.add_argument("--apply", action="store_true", help="write the recommended params to params.yaml")
    tune.set_defaults(command=tune_model)
    dataset = commands.add_parser(
        "dataset",
        help="use your own images",
        description="Describe a data set, write its sections of params.yaml, and create data/about.md for you to fill "
        "in. A folder of image files is copied to images/ and tracked by DVC.",
    )
    dataset.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="folder of images in CLASS/, or in train/CLASS/ and test/CLASS/; or of four IDX files",
    )
    dataset.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="height and width of the model input, in pixels (default: that of the images if it is the same for "
        "all and at most 64, otherwise 32)",
    )
    dataset.add_argument("--grey", action="store_true", help="convert the images to greyscale")
    dataset.add_argument(
        "--flip",
        action="store_true",
        help="flip images at random in training, and average predictions over mirror images; leave it out if "
        "left and right matter, as for digits",
    )
    dataset.add_argument("--name", help="name of the data set (default: that of the folder)")
    dataset.set_defaults(command=configure_dataset)
    stale = commands.add_parser(
        "stale",
        help="exit with 1 if dvc.lock is out of date",
        description="Exit with 1 if dvc.lock is out of date, and name the code, params or data that changed.",
    )
    stale.set_defaults(command=check_lock)
    args = parser.parse_args()
    try:
        args.command(args)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed; install the extras: pip install 'fashion[train,serve,cluster]'"
        ) from error


def run_pipeline(_args: argparse.Namespace) -> None:
    """Run the pipeline; print the results and the path of the report."""
    from fashion import pipeline
    from fashion.evaluation import results
    from fashion.review.revision import working_tree
    from fashion.review.rules import load_rules

    load_rules(working_tree(Path()))  # a mistake there would only be found by the next review
    pipeline.run(Path())
    print(f"\n{results.markdown(results.read(Path()))}\n\nOpen {Path('reports', 'index.html').absolute()}")


def show_results(args: argparse.Namespace) -> None:
    """Print the results of each model as a table or as JSON."""
    from fashion.evaluation import results

    found = results.read(args.root)
    print(json.dumps(results.as_json(found), indent=2) if args.json else results.markdown(found))


def show_review(args: argparse.Namespace) -> None:
    """Print what a change did to each model; with --gate, fail if the gate does."""
    from fashion.files import write_bytes, write_text
    from fashion.review import gate, report, snapshot
    from fashion.review.compare import compare

    result = compare(*snapshot.take(Path(), args.base, args.head, rebuild=args.rebuild))
    failures = gate.failures(result)
    drawn = {}
    if args.html or args.figures:
        from fashion.evaluation.figures import png
        from fashion.review import figures

        drawn = {name: png(figure) for name, figure in figures.draw(result).items()}
    if args.html:
        inline = {name: f"data:image/png;base64,{b64encode(content).decode()}" for name, content in drawn.items()}
        write_text(args.html, report.page(report.markdown(result, failures, inline)))
    links = {name: f"{args.figures.absolute().name}/{name}.png" for name in drawn} if args.figures else {}
    for name in links:
        write_bytes(args.figures / f"{name}.png", drawn[name])
    print(report.markdown(result, failures, links))
    if args.gate and failures:
        raise UserError("\n".join(failures))


def show_predictions(args: argparse.Namespace) -> None:
    """Print the predictions for test images, then for files; exit with 2 if one of them cannot be classified."""
    from fashion.dvc import Lock
    from fashion.serving.classifier import Classifier
    from fashion.serving.predict import load_image, load_test_images, predict

    root = Path()
    predictions = []
    failed = False
    try:
        if not args.images and not args.test_index:
            raise UserError("no image given; pass a file or --test-index N")
        if args.figure and (args.figure.suffix.lower() != ".png" or args.figure.is_dir()):
            raise UserError(f"{args.figure}: --figure writes a PNG file; its name must end in .png")
        lock = Lock.read(root)
        classifier = Classifier(root, lock, args.model)
        images = load_test_images(root, lock, args.test_index, classifier)
    except UserError as error:
        print_error(str(error))
        sys.exit(2)
    for start in range(0, max(1, len(args.images)), BATCH_SIZE):
        for name in args.images[start : start + BATCH_SIZE]:
            try:
                images.append(load_image(name, classifier, args.background))
            except UserError as error:
                print_error(str(error))
                failed = True
        batch = predict(classifier, images) if images else []
        for prediction in batch:
            print(json.dumps(prediction.as_json(), ensure_ascii=False) if args.json else prediction, flush=True)
        predictions += batch if args.figure else []
        images = []
    if predictions:
        from fashion.evaluation.figures import png
        from fashion.files import write_bytes
        from fashion.serving.figures import prediction_grid

        write_bytes(args.figure, png(prediction_grid(predictions)))
    if failed:
        sys.exit(2)


def show_demo(args: argparse.Namespace) -> None:
    """Serve a page to try the models on until interrupted."""
    from fashion.serving import app

    app.serve(Path(), args.port)


def tune_model(args: argparse.Namespace) -> None:
    """Search for better params of a model, and print and write what was found."""
    from fashion.tune import run

    run.run(args.model, args.trials, args.hours, args.fresh, args.apply)


def configure_dataset(args: argparse.Namespace) -> None:
    """Set the project up for another data set, and print what was found and changed."""
    from fashion.data import inspection

    for line in inspection.configure(Path(), args.path, args.size, args.grey, args.flip, args.name):
        print(line, flush=True)


def check_lock(_args: argparse.Namespace) -> None:
    """Fail if dvc.lock is out of date."""
    from fashion.review import revision

    if changed := revision.stale(Path()):
        raise UserError(revision.stale_message(changed))


def entry_point() -> None:
    """Run the `fashion` command and exit."""
    run_command(main)


if __name__ == "__main__":
    entry_point()
