"""A stand-in for GitHub's `gh api`: it keeps comments, issues and runs in a file, and answers and fails as GitHub does.

Called as ``workflow_gh.py STORE api …``. It knows what the workflows use: GET with pages and ``--jq``, POST and PATCH with
fields, tokens with permissions, and what is refused.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import jq

BOT = "github-actions[bot]"
LONGEST = 65_536
VALUES = {"true": True, "false": False, "null": None}


def main() -> None:
    store = Path(sys.argv[1])
    arguments = sys.argv[2:]
    if arguments[:1] != ["api"]:
        sys.exit(f"unknown command {arguments[:1]} for gh")
    options = parse(arguments[1:])
    token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN")
    if not token:
        print(
            "gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable", file=sys.stderr
        )
        sys.exit(4)
    state = json.loads(store.read_text())
    if token not in state["tokens"]:
        refuse(401, "Bad credentials")
    parts = urlsplit(options["path"].lstrip("/"))
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    method = options["method"] or ("POST" if options["fields"] else "GET")
    state["asked"].append(f"{method} {options['path']}")
    store.write_text(json.dumps(state))
    answer = serve(state, state["tokens"][token], method, parts.path, query, options["fields"])
    store.write_text(json.dumps(state))
    if not isinstance(answer, list):
        show(answer, options["jq"])
        return
    size = min(int(query.get("per_page", 30)), 100)
    pages = [answer[first : first + size] for first in range(0, len(answer), size)] or [[]]
    # one answer after the other, each through --jq by itself
    for page in pages if options["paginate"] else pages[int(query.get("page", 1)) - 1 :][:1]:
        show(page, options["jq"])


def parse(arguments: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"method": None, "paginate": False, "jq": None, "fields": {}, "path": None}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--paginate":
            options["paginate"] = True
        elif argument in ("--method", "-X"):
            options["method"] = next(rest)
        elif argument in ("--jq", "-q"):
            options["jq"] = next(rest)
        elif argument in ("-f", "--raw-field", "-F", "--field"):
            name, _, value = next(rest).partition("=")
            options["fields"][name] = value if argument in ("-f", "--raw-field") else typed(value)
        elif argument.startswith("-"):
            sys.exit(f"unknown flag: {argument}")
        elif options["path"] is not None:
            sys.exit(f"accepts 1 arg(s), received more: {argument}")
        else:
            options["path"] = argument
    return options


def typed(value: str) -> Any:
    """What -F makes of a value."""
    if value.startswith("@"):
        return Path(value[1:]).read_bytes().decode("utf-8", "replace")
    return VALUES[value] if value in VALUES else int(value) if re.fullmatch(r"-?\d+", value) else value


def serve(
    state: dict[str, Any], may: dict[str, str], method: str, path: str, query: dict[str, str], fields: dict[str, Any]
) -> Any:
    place = path.removeprefix(f"repos/{state['repository']}/")
    if place == path:
        refuse(404, "Not Found")
    if match := re.fullmatch(r"issues/(\d+)/comments", place):
        of_pull = any(may.get(name) in ("read", "write") for name in ("pull-requests", "issues"))
        if not of_pull or (method == "POST" and "write" not in (may.get("pull-requests"), may.get("issues"))):
            refuse(403, "Resource not accessible by integration")
        comments = state["comments"].setdefault(match[1], [])
        if method == "GET":
            return comments
        comments.append(made(state, fields) | {"issue": match[1]})
        return comments[-1]
    if match := re.fullmatch(r"issues/comments/(\d+)", place):
        if "write" not in (may.get("pull-requests"), may.get("issues")):
            refuse(403, "Resource not accessible by integration")
        return changed([one for some in state["comments"].values() for one in some], "id", match[1], method, fields)
    if place == "issues" or re.fullmatch(r"issues/(\d+)", place):
        if may.get("issues") != "write":
            refuse(403, "Resource not accessible by integration")
        if place != "issues":
            return changed(state["issues"], "number", place.partition("/")[2], method, fields)
        if method == "GET":
            wanted = query.get("state", "open")
            return [
                one
                for one in state["issues"]
                if wanted in ("all", one["state"])
                and query.get("creator", one["user"]["login"]) == one["user"]["login"]
            ]
        issue = made(state, fields) | {"number": 100 + len(state["issues"]), "title": fields["title"], "state": "open"}
        state["issues"].append(issue)
        return issue
    if match := re.fullmatch(r"actions/runs/(\d+)", place):
        if may.get("actions") not in ("read", "write"):
            refuse(403, "Resource not accessible by integration")
        return state["runs"].get(match[1]) or refuse(404, "Not Found")
    return refuse(404, "Not Found")


def made(state: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    check(fields)
    state["last"] += 1
    return {
        "id": state["last"],
        "user": {"login": BOT},
        "body": fields["body"],
        "html_url": f"https://github.com/{state['repository']}/issues/comments/{state['last']}",
    }


def changed(items: list[dict[str, Any]], key: str, value: str, method: str, fields: dict[str, Any]) -> Any:
    found = next((one for one in items if str(one[key]) == value), None)
    if found is None or method != "PATCH":
        refuse(404, "Not Found")
    check(fields)
    found.update(fields)
    return found


def check(fields: dict[str, Any]) -> None:
    if not isinstance(fields.get("body"), str) or not fields["body"].strip():
        refuse(422, "Validation Failed")
    if len(fields["body"]) > LONGEST:
        refuse(422, f"Validation Failed: body is too long (maximum is {LONGEST} characters)")


def refuse(status: int, message: str) -> NoReturn:
    print(json.dumps({"message": message, "status": str(status)}))
    print(f"gh: {message} (HTTP {status})", file=sys.stderr)
    sys.exit(1)


def show(value: Any, program: str | None) -> None:
    if program is None:
        print(json.dumps(value))
        return
    for item in jq.compile(program).input_value(value).all():
        print(item if isinstance(item, str) else json.dumps(item))


if __name__ == "__main__":
    main()
