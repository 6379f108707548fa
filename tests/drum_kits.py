"""Make a dataset of real drum sounds that anyone can get: python -m tests.drum_kits TARGET [--ungrouped]

They are the kits of the drum machine Hydrogen: apt-get install --no-install-recommends hydrogen-data
hydrogen-drumkits (Debian, Ubuntu). The sounds of a kit are a group, so scores are for kits that the model has never
heard; with --ungrouped they are not.
"""

import argparse
import hashlib
import re
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd

from utils import own

KITS = Path("/usr/share/hydrogen/data/drumkits")
CLASSES = {  # the first whose pattern is in the name of the instrument
    "Cowbell": "cowbell",
    "Clap": "clap",
    "Rim": "rim|stick|clave",
    "Bass drum": "kick|bass ?drum",
    "Snare": "snare",
    "Tom": r"\btom|conga|bongo",
    "Open hi-hat": r"(hh|hat).*(open|op\b)|(open|op) ?(hh|hat)",
    "Closed hi-hat": r"(hh|hat).*(clos|cl\b|pedal|pd\b)|(closed|pedal) ?(hh|hat)",
    "Ride": "^ride|paiste (ride|bell)",
    "Crash": "^crash(?!/ride)|sabian crash|splash|china",
}


def sounds(kits: Path) -> pd.DataFrame:
    """List `fname` (relative to `kits`), `labels` and `group` (the kit) of each sound of the classes, copies once."""
    rows = []
    for kit in sorted(kits.glob("*/drumkit.xml")):
        for instrument in ElementTree.parse(kit).iterfind(".//{*}instrument"):
            name = instrument.findtext("{*}name", "").lower()
            label = next((label for label, pattern in CLASSES.items() if re.search(pattern, name)), None)
            files = {kit.parent / element.text for element in instrument.iterfind(".//{*}filename") if element.text}
            rows += [(file, label, kit.parent.name) for file in sorted(files) if label and file.is_file()]
    if not rows:
        raise SystemExit(f"There are no drum kits in {kits}: apt-get install hydrogen-data hydrogen-drumkits.")
    table = pd.DataFrame(rows, columns=["path", "labels", "group"])
    # Most sounds of the first are copies from the second, and the others are of the same drums.
    table["group"] = table["group"].replace("GMRockKit", "The Black Pearl 1.0")
    content = table["path"].map(lambda path: hashlib.sha256(path.read_bytes()).hexdigest())
    silent = table["path"].map(lambda path: path.name.startswith("emptySample"))
    unclear = table.groupby(content)["labels"].transform("nunique") > 1  # one sound for two instruments
    table = table[~content.duplicated() & ~silent & ~unclear]
    return table.assign(fname=[path.relative_to(kits) for path in table["path"]])[["fname", "labels", "group"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.drum_kits", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("target", help="folder to make, for --data")
    parser.add_argument("--ungrouped", action="store_true", help="sounds of a kit may be in different splits")
    options = parser.parse_args()
    table = sounds(KITS)
    with tempfile.TemporaryDirectory() as folder:
        table.drop(columns=["group"] * options.ungrouped).to_csv(f"{folder}/drums.csv", index=False)
        own.main([str(KITS), options.target, "--csv", f"{folder}/drums.csv"])


if __name__ == "__main__":
    main()
