"""The program ``snf-image-update-helper``: puts a helper image that is fetched, or built, into its place."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from snf_image_host import helper_image
from snf_image_host.cli.asking import config_files
from snf_image_host.cli.failure import report_bug, report_error, report_interruption
from snf_image_host.cli.interruption import Interrupted, interruptible
from snf_image_host.cli.output import flush, prepare_streams, print_error, print_json, print_result
from snf_image_host.cli.parser import Parser, VersionAction, typed
from snf_image_host.configuration.node_config import load_config
from snf_image_host.errors import SnfImageError
from snf_image_host.helper_image.update import Update, update
from snf_image_host.parameters.values import parse_sha256
from snf_image_host.planning.image import fetch_policy
from snf_image_host.reporter import Reporter

_TEXT: Final = """\
Puts a helper image into HELPER_DIR: fetched from a URL, taken from a file, or built. What is fetched is a tar
archive, plain or compressed by gzip, xz or zstd, with the files of a helper image; one from the network needs
a digest or a signature. It takes the place of the old one in one step, after every digest of its manifest was
found right.

examples:
  snf-image-update-helper                                    # from HELPER_URL, checked by HELPER_SHA256
  snf-image-update-helper https://example.org/helper.tar.xz --sha256 HEX
  snf-image-update-helper /srv/helper.tar
  snf-image-update-helper --build --source /usr/src/snf-image
"""


def build_parser() -> Parser:
    parser = Parser(prog="snf-image-update-helper", description=_TEXT)
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument(
        "image", nargs="?", metavar="FILE|URL", help="archive with a helper image (default: HELPER_URL)"
    )
    parser.add_argument(
        "--sha256", type=typed(parse_sha256), metavar="HEX",
        help="digest that the archive must have (default, for HELPER_URL: HELPER_SHA256)",
    )  # fmt: skip
    parser.add_argument(
        "--signature",
        metavar="FILE|URL",
        help="signature of the archive by a key in TRUSTED_KEYS_DIR (OpenPGP or Ed25519)",
    )
    parser.add_argument("--build", action="store_true", help="build it from a source tree instead")
    parser.add_argument("--source", metavar="DIR", help="source tree (default: the one this program is from)")
    parser.add_argument("--helper-dir", metavar="DIR", help="where it belongs (default: HELPER_DIR)")
    parser.add_argument(
        "--config", action="append", metavar="FILE", help="read this instead of the files in /etc"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit status."""
    words = sys.argv[1:] if argv is None else argv
    prepare_streams()
    as_json = "--json" in words
    try:
        with interruptible():
            return _run(build_parser().parse_args(words))
    except SystemExit as end:  # --help and --version
        flush()
        return int(end.code or 0)
    except SnfImageError as error:
        return report_error(error, as_json=as_json)
    except Interrupted as interrupted:
        return report_interruption(interrupted, touched=None, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a bug of ours, and users see no traceback
        return report_bug(error, secrets=(), as_json=as_json)


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(config_files(arguments))
    for warning in config.warnings:
        print_error(f"snf-image-update-helper: warning: {warning}")
    directory = os.path.abspath(arguments.helper_dir or config.helper_dir)
    if arguments.build:
        helper_image.build(output=directory, source=arguments.source and os.path.abspath(arguments.source))
    else:
        # The digest of the configuration is that of HELPER_URL, and of nothing else.
        asked = Update(
            source=arguments.image or config.helper_url,
            sha256=arguments.sha256 or (None if arguments.image else config.helper_sha256),
            signature=arguments.signature,
            trusted_keys=config.trusted_keys_dir,
            policy=fetch_policy(config),
            uid_range=config.helper_uid_range,
        )
        update(asked, directory, Reporter())
    image = helper_image.load(directory)
    if arguments.json:
        print_json({"result": "success", "exit_code": 0, "directory": directory, "build": image.build})
    else:
        print_result(f"{directory}: helper image, build {image.build[:12]}")
    return 0
