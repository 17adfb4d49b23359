#!/usr/bin/env python3
"""A hook at `before_tool_call`, as a program: reads one JSON document, writes one answer.

  --root=DIR                    where tools work
  --keep-out=FOLDER             no call may name a path in this folder of the root
  --ask=FOLDER                  a person decides about calls that name one in this folder
  --default=TOOL.ARGUMENT=JSON  what a call gets that leaves this argument out

All but --root can be given several times. An invocation has one answer: the first that applies,
in the order above. Declare the program twice to have two.

It judges the paths that a call names, after following symbolic links. It knows nothing of what a
tool finds by itself: git, for one, knows every file of its repository.
"""

import argparse
import json
import os
import sys

# The arguments of the example tools that are paths.
PATHS = ("from", "path", "repository", "to")

# The example tools that act on what is below a path, and their path when none is named.
DEEP = {"list_files": ".", "move_file": None, "search_text": "."}


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=".")
    parser.add_argument("--keep-out", action="append", default=[])
    parser.add_argument("--ask", action="append", default=[])
    parser.add_argument("--default", action="append", default=[])
    return parser.parse_args()


def is_in(place, folder):
    return os.path.commonpath((place, folder)) == folder


def goes_down(tool, arguments):
    if tool == "list_files":
        return arguments.get("depth", 1) != 1
    return tool in DEEP


def named(tool, arguments):
    """The paths that a call names, by argument."""
    paths = {name: arguments[name] for name in PATHS if name in arguments}
    if "path" not in paths and DEEP.get(tool):
        paths["path"] = DEEP[tool]
    return paths


def touched(tool, arguments, root, folders):
    """The first argument that leads to one of the folders, and the folder."""
    root, deep = os.path.realpath(root), goes_down(tool, arguments)
    for name, path in named(tool, arguments).items():
        place = os.path.realpath(os.path.join(root, path))
        for folder in folders:
            guarded = os.path.realpath(os.path.join(root, folder))
            if is_in(place, guarded) or (deep and is_in(guarded, place)):
                return name, folder
    return None


def answer(tool, arguments, given):
    found = touched(tool, arguments, given.root, given.keep_out)
    if found:
        text = "`{}` leads to {}, which is not for agents".format(*found)
        return {"type": "deny", "payload": {"code": "path.kept_out", "redacted_summary": text}}
    found = touched(tool, arguments, given.root, given.ask)
    if found:
        text = "`{}` leads to {}".format(*found)
        return {"type": "request_approval", "payload": {"redacted_summary": text}}
    patch = {}
    for default in given.default:
        target, value = default.split("=", 1)
        of, argument = target.split(".", 1)
        if of == tool and argument not in arguments:
            patch[argument] = json.loads(value)
    if patch:
        text = "set because it was not given: " + ", ".join(patch)
        payload = {"redacted_summary": text, "merge_patch": patch}
        return {"type": "modify_tool_request", "payload": payload}
    return {"type": "observe_only"}


def main():
    given = options()
    asked = json.load(sys.stdin)
    content = asked["view"]["content"]  # there with privacy = "content_capture_allowed" only
    json.dump(answer(content["tool"], content["arguments"], given), sys.stdout)


if __name__ == "__main__":
    main()
