"""Turn what `pip install --report` says on standard input into pins, one package a line."""

import json
import sys

packages = [each["metadata"] for each in json.load(sys.stdin)["install"]]
# A pin names no build: 2.13.0, not 2.13.0+cpu.
pins = [f"{each['name']}=={each['version'].split('+')[0]}" for each in packages]
print(*sorted((pin for pin in pins if not pin.startswith("erddci==")), key=str.upper), sep="\n")
