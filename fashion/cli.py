"""The `fashion` command."""

import argparse
import json
import sys
from base64 import b64encode
from contextlib import nullcontext
from pathlib import Path

from fashion.errors import UserError, run_command

PICTURES_AT_ONCE = 500  # read before they are answered: many, as a batch is fast, and few enough to see it go on


def main() -> None:
    """Run the `fashion` command."""
    parser = argparse.ArgumentParser(prog="fashion", description="Work with the models of this pipeline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the pipeline and show the results",
        description="Run the stages that are out of date, then show their times and the results. `make` does this.",
    )
    run.set_defaults(command=run_pipeline)
    results = commands.add_parser(
        "results", help="print the table of results", description="Print the table of results."
    )
    results.add_argument("--json", action="store_true", help="print JSON, for programs")
    results.add_argument("--root", type=Path, default=Path(), help="folder of the project (default: this one)")
    results.set_defaults(command=show_results)
    review = commands.add_parser(
        "review",
        help="compare the models of two revisions",
        description="Compare the models of two revisions and print what changed, as Markdown.",
    )
    review.add_argument("--base", metavar="REV", help="revision to compare with (default: where head left main)")
    review.add_argument("--head", metavar="REV", help="revision to review (default: the working tree)")
    review.add_argument("--html", type=Path, metavar="FILE", help="write the review as a page that holds its pictures")
    review.add_argument(
        "--pictures", type=Path, metavar="DIR", help="write the pictures here; the Markdown takes them beside it"
    )
    review.add_argument(
        "--rebuild", action="store_true", help="run the pipeline of commits whose artifacts are missing"
    )
    review.add_argument(
        "--gate", action="store_true", help="exit 1 if a model is significantly worse or below its floor"
    )
    review.set_defaults(command=show_review)
    predict = commands.add_parser(
        "predict",
        help="say what pictures show",
        description="Say what pictures of clothing show. Exit 2 if one of them could not be answered.",
    )
    predict.add_argument("images", nargs="*", metavar="IMAGE", help="PNG, JPEG or WebP file; - for standard input")
    predict.add_argument(
        "--test-index", type=int, action="append", default=[], metavar="N", help="a test image, from 0; may be repeated"
    )
    predict.add_argument("--model", default="cnn", metavar="NAME", help="the model to ask (default: cnn)")
    predict.add_argument(
        "--background",
        choices=["light", "dark"],
        help="what is behind the clothing (default: as the picture's border shows)",
    )
    predict.add_argument("--json", action="store_true", help="print JSON, for programs: an object per picture and line")
    predict.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw what the model saw, with its answers, as a PNG file"
    )
    predict.set_defaults(command=show_predictions)
    demo = commands.add_parser(
        "demo",
        help="serve a page to try the models on",
        description="Serve a page to try the models on, to browsers on this machine alone.",
    )
    demo.add_argument(
        "--port", type=int, default=8000, help="port to listen to; 0 for any that is free (default: 8000)"
    )
    demo.set_defaults(command=show_demo)
    stale = commands.add_parser(
        "stale",
        help="exit 1 if dvc.lock was written with other code or params",
        description="Exit 1 if dvc.lock was written with other code or params than are there, and name them.",
    )
    stale.set_defaults(command=check_lock)
    args = parser.parse_args()
    args.command(args)


def run_pipeline(_args: argparse.Namespace) -> None:
    """Run the pipeline, and print the results and where the report is."""
    from fashion import pipeline
    from fashion.evaluation import results

    pipeline.run(Path())
    print(f"\n{results.markdown(results.read(Path()))}\n\nOpen {Path('reports', 'index.html').absolute()}")


def show_results(args: argparse.Namespace) -> None:
    """Print each model's results, as a table or as JSON."""
    from fashion.evaluation import results

    found = results.read(args.root)
    print(json.dumps(results.as_json(found), indent=2) if args.json else results.markdown(found))


def show_review(args: argparse.Namespace) -> None:
    """Print a review of a change; with --gate, fail if a model is worse than it may be."""
    from fashion.evaluation.figures import png
    from fashion.files import atomic_write, write_text
    from fashion.review import compare, report, snapshot

    root = Path()
    declared = compare.declared(snapshot.working_tree(root))
    if declared is None:
        raise UserError(
            "params.yaml has no section `review`, which names the models to compare; docs/review.md tells how"
        )
    ends = snapshot.resolve(root, args.base, args.head, declared.main)
    with snapshot.rebuilt(ends, compare.lacks_artifacts) if args.rebuild else nullcontext(ends) as (base, head):
        found = compare.compare(base, head)
    drawn = {}
    if args.html or args.pictures:
        drawn = {name: png(figure) for name, figure in pictures.draw(found).items()}
    if args.html:
        inside = {name: f"data:image/png;base64,{b64encode(content).decode()}" for name, content in drawn.items()}
        write_text(args.html, report.page(report.markdown(found, inside)))
    beside = {}
    if args.pictures:
        for name, content in drawn.items():
            with atomic_write(args.pictures / f"{name}.png") as file:
                file.write(content)
        beside = {name: f"{args.pictures.name}/{name}.png" for name in drawn}
    print(report.markdown(found, beside))
    if args.gate and found.failures:
        raise UserError("\n".join(found.failures))


def show_predictions(args: argparse.Namespace) -> None:
    """Print what a model says, of test images first, then of files; exit 2 if one of them could not be answered."""
    from fashion.serving.artifacts import Artifacts
    from fashion.serving.classifier import Classifier
    from fashion.serving.predict import predict, read_picture, test_pictures

    def fail(error: UserError) -> None:
        print(f"error: {error}", file=sys.stderr)

    root, refused = Path(), False
    try:
        if not args.images and not args.test_index:
            raise UserError("no picture; name a file, or a test image with --test-index")
        if args.figure and (args.figure.suffix.lower() != ".png" or args.figure.is_dir()):
            raise UserError(f"{args.figure}: --figure writes a PNG file; name one that ends in .png")
        classifier = Classifier(Artifacts(root), args.model)
        pictures = test_pictures(root, args.test_index, classifier)
    except UserError as error:
        fail(error)
        sys.exit(2)
    predictions = []
    for start in range(0, max(1, len(args.images)), PICTURES_AT_ONCE):
        for name in args.images[start : start + PICTURES_AT_ONCE]:
            try:
                pictures.append(read_picture(name, classifier.image_shape, args.background))
            except UserError as error:
                fail(error)
                refused = True
        answered = list(predict(classifier, pictures)) if pictures else []
        for prediction in answered:
            print(json.dumps(prediction.as_json(), ensure_ascii=False) if args.json else prediction, flush=True)
        predictions += answered if args.figure else []
        pictures = []
    if args.figure and predictions:
        from fashion.evaluation.figures import png
        from fashion.files import atomic_write
        from fashion.serving.drawing import draw

        with atomic_write(args.figure) as file:
            file.write(png(draw(predictions)))
    if refused:
        sys.exit(2)


def show_demo(args: argparse.Namespace) -> None:
    """Serve the page to try the models on until interrupted."""
    demo.serve(Path(), args.port)


def check_lock(_args: argparse.Namespace) -> None:
    """Fail if dvc.lock was written with other code or params than are there."""
    from fashion.review import snapshot

    if found := snapshot.stale(Path()):
        raise UserError(snapshot.behind(found))


def entry_point() -> None:
    """Run the `fashion` command and exit."""
    run_command(main)


if __name__ == "__main__":
    entry_point()
