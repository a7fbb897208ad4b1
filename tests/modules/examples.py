# SPDX-License-Identifier: GPL-2.0
"""Makes KUnit tests of the examples in the documentation of Rust files: `examples.py FILE.rs... >tests.rs`. Run by Kbuild."""

from __future__ import annotations

import re
import sys
from pathlib import Path

EXAMPLE = re.compile(r"^ *//[/!] ```\n(.*?)^ *//[/!] ```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^ *//[/!] ?(?:# )?", re.MULTILINE)


def main(paths: list[str]) -> None:
    """Prints a module with a test for each example; its name says where the example stands."""
    print("#[kernel::macros::kunit_tests(virtio_examples)]\nmod tests {\n    use kernel::prelude::*;")
    for path in map(Path, paths):
        text = path.read_text()
        for found in EXAMPLE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            code = COMMENT.sub("        ", found.group(1))
            print(f"\n    #[test]\n    fn {path.stem}_{line}() -> Result {{\n{code}        Ok(())\n    }}")
    print("}")


main(sys.argv[1:])
