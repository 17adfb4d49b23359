#!/usr/bin/env python3
"""Verifies what Countersign signed, without Countersign: bundles, receipts and critic chains.

    verify.py log log.bundle --key "$(cat log.pub)" [--checkpoint kept.txt]
    verify.py receipt receipt.json --key "$(cat log.pub)"
    verify.py critic chain.json --key 64HEX [--anchor anchor.json] [--chain-id ID]
    verify.py cases fixtures/audit/attacks/*/*.ndjson

Needs Python 3.10 and the package `cryptography`. Exit code 0: whole; 1: broken; 2: unusable.
The formats are in docs/bundle-format.md and docs/critic-chains.md.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Unusable(Exception):
    """What was given is not of the form it should have."""


class Broken(Exception):
    """A rule does not hold: its word, and where."""


# ---- JSON, strictly ---------------------------------------------------------------------------

MAX_DEPTH = 128


def pairs_once(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unusable("a key stands there twice")
    return found


class Object(dict):
    """An object in which a key may stand twice: `twice` has those that do."""


def pairs_noted(pairs):
    found, seen = Object(pairs), set()
    found.twice = {name for name, _ in pairs if name in seen or seen.add(name)} if len(found) < len(pairs) else ()
    return found


def no_constant(text):
    raise Unusable(f"{text} is no JSON")


def finite(text):
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Unusable(f"{text} is out of range")
    return number


def integer(text, fraction):
    """A whole number of 64 bits; what is larger is read as a fraction is."""
    number = int(text) if len(text) <= 20 else 2**64
    return number if text != "-0" and -(2**63) <= number < 2**64 else fraction(text)


def deepest(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(deepest, inner), default=0)


def parse(data, strict=True):
    """One document. Where not `strict`, what the rules do not look at may be anything that is JSON."""
    fraction = finite if strict else float
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(
            text, object_pairs_hook=pairs_once if strict else pairs_noted, parse_constant=no_constant,
            parse_float=fraction, parse_int=lambda text: integer(text, fraction),
        )
        if not strict:
            return value
        if "\\u" in text:
            # Half of a pair is no character.
            json.dumps(value, ensure_ascii=False).encode()
        if text.count("[") + text.count("{") >= MAX_DEPTH and deepest(value) >= MAX_DEPTH:
            raise Unusable("nested too deep")
        return value
    except (ValueError, RecursionError) as error:
        raise Unusable(f"no JSON: {error}") from error


def field(value, name, kind):
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise Unusable(f"`{name}` is missing or of another kind")
    return found


def natural(value, name, below=2**64):
    if not 0 <= field(value, name, int) < below:
        raise Unusable(f"`{name}` is out of range")
    return value[name]


# ---- Ed25519, strictly ------------------------------------------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, -1, P)
L = 2**252 + 27742317777372353535851937790883648493
SMALL_Y = {
    0, 1, P - 1,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
}


def proper(point):
    """Whether 32 bytes are the one encoding of a point that is not of small order."""
    y = int.from_bytes(point, "little") & (2**255 - 1)
    return y < P and y not in SMALL_Y


def signed(key, message, signature):
    if len(signature) != 64 or not proper(key) or not proper(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def usable(key):
    """Whether 32 bytes are the one encoding of a point of the curve that is not of small order."""
    y = int.from_bytes(key, "little") & (2**255 - 1)
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P)
    return proper(key) and pow(x_squared, (P - 1) // 2, P) == 1


def hexadecimal(text, size):
    if not isinstance(text, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text):
        return b""
    return bytes.fromhex(text)


def critic_key(text):
    text = text.strip()
    if not re.fullmatch("[0-9a-fA-F]{64}", text) or not usable(bytes.fromhex(text)):
        raise Unusable("not a usable Ed25519 key of 64 hexadecimal digits")
    return bytes.fromhex(text)


# ---- Critic chains ----------------------------------------------------------------------------


def rust_float(number):
    """The shortest decimal that reads back as the same number, never with an exponent."""
    text = format(Decimal(repr(float(number))), "f")
    return text[:-2] if text.endswith(".0") else text


TIME = re.compile(
    r"([0-9]{4})(-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+\u2212-][0-9]{2}:[0-5][0-9])"
)


def times(text):
    """How a time may stand in the hashed text: as spelled, and as the peer spells it."""
    match = TIME.fullmatch(text)
    if not match or len(text.encode()) > 64:
        raise Unusable(f"`{text}` is no time")
    year, day, clock, second, fraction, zone = match.groups()
    # Years that a date here cannot have are moved to where the calendar is the same.
    moved = 400 if int(year) < 5000 else -400
    leap = second == "60"
    try:
        moment = datetime.fromisoformat(f"{int(year) + moved:04}{day}T{clock}:{'59' if leap else second}")
    except ValueError as error:
        raise Unusable(f"`{text}` is no time") from error
    offset = timedelta(0)
    if zone not in "Zz":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6])) * (1 if zone[0] == "+" else -1)
    if clock[:2] == "24" or abs(offset) >= timedelta(days=1):
        raise Unusable(f"`{text}` is no time")
    found = []
    if not offset and zone[0] != "\u2212":
        end = 1 if zone in "Zz" else 6
        found.append(text[:-end] + "+00:00")
    digits = (fraction or ".")[1:]
    if len(digits) <= 9:
        nanos = digits.ljust(9, "0")
        keep = 0 if nanos == "0" * 9 else 3 if nanos[3:] == "0" * 6 else 6 if nanos[6:] == "000" else 9
        moment -= offset
        year = moment.year - moved
        spelled = f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}"
        spelled += f"{moment:-%m-%dT%H:%M:}" + ("60" if leap else f"{moment:%S}")
        found.append(spelled + ("." + nanos[:keep] if keep else "") + "+00:00")
    return found


VERDICTS = {"approved": "Approved", "rejected": "Rejected", "needs_revision": "NeedsRevision"}


def judgement(entry):
    """Looks at the fields that both formats have."""
    for name in ("entry_id", "director_output_hash", "critic_assessment_hash", "chain_hash", "signature"):
        field(entry, name, str)
    if field(entry, "verdict", str) not in VERDICTS:
        raise Unusable("no verdict")
    field(entry, "score", (int, float))
    for score in field(entry, "dimension_scores", dict).values():
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise Unusable("a score is no number")
    natural(entry, "iteration")
    identity = field(entry, "critic_identity", dict)
    needed = {"llm": ["model_id"], "human": ["user_id", "name"]}.get(field(identity, "type", str))
    if needed is None:
        raise Unusable("no identity")
    for name in needed:
        field(identity, name, str)
    times(field(entry, "timestamp", str))


def symbi(entries, key):
    for entry in entries:
        judgement(entry)
    previous = hashlib.sha256(b"genesis").hexdigest()
    for index, e in enumerate(entries):
        if "|" in e["director_output_hash"] + e["critic_assessment_hash"]:
            raise Broken("ambiguous_fields", index)
        hashes = []
        for time in times(e["timestamp"]):
            parts = [e["entry_id"], e["director_output_hash"], e["critic_assessment_hash"],
                     VERDICTS[e["verdict"]], rust_float(e["score"]), time, str(e["iteration"])]
            hashes.append(hashlib.sha256((previous + "|".join(parts)).encode()).hexdigest())
        if e["chain_hash"] not in hashes:
            raise Broken("chain_hash", index)
        if not signed(key, e["chain_hash"].encode(), hexadecimal(e["signature"], 64)):
            raise Broken("signature", index)
        previous = e["chain_hash"]


def canonical_number(number):
    """As RFC 8785 writes it, which is as JavaScript does."""
    if isinstance(number, int):
        number = float(number)
    if number == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    digits = "".join(map(str, digits))
    point = len(digits) + exponent
    if 0 < point <= 21:
        text = digits.ljust(point, "0")[:point]
        if len(digits) > point:
            text += "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        text = f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return "-" * sign + text


def canonical(value):
    """RFC 8785."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return canonical_number(value)
    return json.dumps(value, ensure_ascii=False)


def lossy(value):
    if isinstance(value, dict):
        return any(map(lossy, value.values()))
    if isinstance(value, list):
        return any(map(lossy, value))
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53


def key_id(key):
    return hashlib.sha256(b"countersign-1/critic-key\n" + key).hexdigest()


def own_hash(entry):
    left_out = {"chain_hash", "signature"}
    if entry.get("kind") == "key_rotation":
        left_out.add("new_key_signature")
    body = {name: value for name, value in entry.items() if name not in left_out}
    return hashlib.sha256(("countersign-1/critic-entry\n" + canonical(body)).encode()).hexdigest()


def anchored(anchor, chain_id, entries, keys):
    place = min(anchor["len"], len(entries))
    body = {name: anchor[name] for name in ("chain_id", "len", "head", "key_id")}
    message = ("countersign-1/critic-anchor\n" + canonical(body)).encode()
    good = anchor["key_id"] == key_id(keys[place])
    if not good or not signed(keys[place], message, hexadecimal(anchor["signature"], 64)):
        raise Broken("anchor_signature", anchor["len"])
    if anchor["chain_id"] != chain_id:
        raise Broken("substituted", anchor["len"])
    if anchor["len"] > len(entries):
        raise Broken("truncated", anchor["len"])
    head = entries[place - 1]["chain_hash"] if place else "0" * 64
    if head != anchor["head"]:
        raise Broken("substituted", anchor["len"])
    if anchor["len"] < len(entries):
        raise Broken("extended", anchor["len"])


def read_anchor(value):
    for name, kind in (("chain_id", str), ("len", int), ("head", str), ("key_id", str), ("signature", str)):
        field(value, name, kind)
    natural(value, "len")
    if len(value) != 5:
        raise Unusable("the anchor has other fields")
    return value


def successor(entries, key, chain_id, anchors):
    for e in entries:
        for name in ("format", "chain_id", "key_id", "previous_hash", "chain_hash", "signature"):
            field(e, name, str)
        natural(e, "index")
        if e["format"] != "countersign-1":
            raise Unusable("an entry of another format")
        if e.get("kind") == "key_rotation":
            field(e, "new_key", str), field(e, "new_key_signature", str), times(field(e, "timestamp", str))
        elif e.get("kind") == "assessment":
            judgement(e)
        else:
            raise Unusable("no kind")
    chain_id = chain_id if chain_id is not None else entries[0]["chain_id"] if entries else ""
    keys, previous = [key], "0" * 64
    for index, e in enumerate(entries):
        key = keys[-1]
        try:
            computed = own_hash(e)
        except (OverflowError, UnicodeEncodeError):
            raise Broken("number", index) from None
        for rule, expected, found in (
            ("chain_id", chain_id, e["chain_id"]), ("index", index, e["index"]),
            ("key_id", key_id(key), e["key_id"]), ("previous_hash", previous, e["previous_hash"]),
            ("chain_hash", computed, e["chain_hash"]),
        ):
            if expected != found:
                raise Broken(rule, index)
        if lossy(e):
            raise Broken("number", index)
        message = ("countersign-1/critic-signature\n" + e["chain_hash"]).encode()
        if not signed(key, message, hexadecimal(e["signature"], 64)):
            raise Broken("signature", index)
        if e["kind"] == "key_rotation":
            try:
                key = critic_key(e["new_key"])
            except Unusable:
                raise Broken("rotation", index) from None
            message = ("countersign-1/critic-new-key\n" + e["chain_hash"]).encode()
            if not signed(key, message, hexadecimal(e["new_key_signature"], 64)):
                raise Broken("rotation", index)
        elif not all(0 <= score <= 1 for score in [e["score"], *e["dimension_scores"].values()]):
            raise Broken("score", index)
        keys.append(key)
        previous = e["chain_hash"]
    for anchor in anchors:
        anchored(anchor, chain_id, entries, keys)


def critic(data, key_text, anchor=None, chain_id=None):
    key, value = critic_key(key_text), parse(data)
    beside = {} if isinstance(value, list) else value
    entries = value if isinstance(value, list) else field(value, "entries", list)
    if not all(isinstance(entry, dict) for entry in entries):
        raise Unusable("an entry is no object")
    own = beside.get("format") == "countersign-1" or (entries and entries[0].get("format") == "countersign-1")
    if not own:
        if anchor or chain_id is not None:
            raise Unusable("a symbi-1 chain has neither an id nor an anchor")
        return symbi(entries, key)
    anchors = [anchor] if anchor else []
    if "chain_id" in beside:
        field(beside, "chain_id", str)
    if "anchor" in beside:
        anchors.append(read_anchor(beside["anchor"]))
    return successor(entries, key, beside.get("chain_id") if chain_id is None else chain_id, anchors)


# ---- The log ----------------------------------------------------------------------------------


def leaf(record):
    return hashlib.sha256(b"\0" + record).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """The complete subtrees of RFC 6962, the widest first."""

    def __init__(self, size=0, peaks=()):
        self.size, self.peaks = size, list(peaks)
        if len(self.peaks) != bin(size).count("1"):
            raise Unusable("`peaks` do not fit")

    def push(self, digest):
        size = self.size
        while size & 1:
            digest = node(self.peaks.pop(), digest)
            size >>= 1
        self.peaks.append(digest)
        self.size += 1

    def root(self):
        if not self.peaks:
            return hashlib.sha256().digest()
        digest = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            digest = node(peak, digest)
        return digest


def unbase64(text):
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not the one spelling")
    return data


class Key:
    """A log's public key: name+id+base64(1 ‖ key)."""

    def __init__(self, text):
        try:
            self.name, number, data = text.rstrip().split("+", 2)
            data = unbase64(data)
        except ValueError as error:
            raise Unusable(f"no key: {error}") from error
        self.bytes = data[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + data).digest()[:4]
        if data[:1] != b"\1" or len(data) != 33 or self.id.hex() != number or not usable(self.bytes):
            raise Unusable("no usable key")
        if not self.name or re.search(r"[\s\x00-\x1f\x7f-\x9f]", self.name):
            raise Unusable("no name for a key")


class Checkpoint:
    """A checkpoint in the one way to write it, whose signatures nobody has looked at."""

    def __init__(self, note):
        text, blank, below = note.rpartition("\n\n")
        try:
            self.origin, size, root = text.split("\n")
            self.size, self.root = int(size), unbase64(root)
            if len(note.encode()) > 65536 or not blank or not below.endswith("\n"):
                raise ValueError("no note")
            if str(self.size) != size or not 0 <= self.size < 2**64 or len(self.root) != 32:
                raise ValueError("another form")
            self.text, self.signatures = (text + "\n").encode(), []
            for line in below[:-1].split("\n"):
                dash, name, data = line.split(" ")
                data = unbase64(data)
                if dash != "\u2014" or len(data) < 4:
                    raise ValueError("no signature line")
                self.signatures.append((name, data[:4], data[4:]))
        except ValueError as error:
            raise Broken("checkpoint_invalid", 0) from error

    def by(self, key):
        """Whether the key has signed it; Broken when it did so wrongly."""
        own = [s for name, number, s in self.signatures if (name, number) == (key.name, key.id)]
        if self.origin != key.name or len(own) > 1 or own and not signed(key.bytes, self.text, own[0]):
            raise Broken("checkpoint_invalid", self.size)
        return bool(own)


def checkpoint(note, key):
    """A checkpoint that the key has signed."""
    found = Checkpoint(note)
    if not found.by(key):
        raise Broken("checkpoint_invalid", found.size)
    return found


def journal_record(data):
    """A record, as far as all of them are alike."""
    record = parse(data)
    for name, kind in (("record_id", str), ("agent_id", str), ("payload", dict)):
        field(record, name, kind)
    for name in ("journal_seq", "timestamp_millis"):
        natural(record, name)
    field(record["payload"], "type", str)
    return record


def receipt(data, key_text):
    key, value = Key(key_text), parse(data)
    names = (("receipt_version", int), ("seq", int), ("record", str), ("inclusion_proof", list), ("checkpoint", str))
    for name, kind in names:
        field(value, name, kind)
    if len(value) != len(names) or not all(isinstance(item, str) for item in value["inclusion_proof"]):
        raise Unusable("no receipt")
    natural(value, "seq")
    if natural(value, "receipt_version", 2**32) != 1:
        raise Broken("version", value["seq"])
    said = checkpoint(value["checkpoint"], key)
    missing = Broken("not_included", value["seq"])
    try:
        path = [unbase64(item) for item in value["inclusion_proof"]]
    except ValueError:
        raise missing from None
    at, last, digest = value["seq"] - 1, said.size - 1, leaf(value["record"].encode())
    if not 0 <= at <= last or any(len(step) != 32 for step in path):
        raise missing
    for step in path:
        if last == 0:
            raise missing
        if at & 1 or at == last:
            digest = node(step, digest)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            digest = node(digest, step)
        at, last = at >> 1, last >> 1
    if last or digest != said.root:
        raise missing
    try:
        seq = journal_record(value["record"])["journal_seq"]
    except Unusable:
        raise Broken("record_unreadable", value["seq"]) from None
    if seq != value["seq"]:
        raise Broken("record_misfiled", value["seq"])


# ---- The forms of records ---------------------------------------------------------------------
#
# Of a value: a word for its kind, a set of the words it may be, a list with the form of what is in
# it, a pair with that of what a map has, or the fields of an object. `?` behind a field's name says
# that it may be missing or null, `=` that it may be missing, `!` that there are no other fields.

KINDS = {
    "any": lambda value: True,
    "text": lambda value: isinstance(value, str) and not HALF.search(value),
    "id": lambda value: KINDS["text"](value) and 0 < len(value.encode()) <= 512 and not CONTROL.search(value),
    "number": lambda value: type(value) is int and 0 <= value < 2**64,
    "digest": lambda value: isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value) is not None,
    "count": lambda value: type(value) is int and 0 < value <= 64,
}
HALF = re.compile("[\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
PRIVACY = set("public internal content_refs_only sensitive secret".split())
NOTED = {"redacted_summary?": "text", "privacy=": PRIVACY}
SPOKEN = {**NOTED, "correlation=": [{"key": "text", "value": "text"}]}
SOURCE = {
    "kind": set("sdk host user system developer memory compaction hook extension tool remote_channel "
                "scheduled_task subagent external_runtime replay".split()),
    "trust=": set("trusted sdk_generated host_provided user_provided external untrusted".split()),
    "id": "id", **SPOKEN,
}
DESTINATION = {
    "kind": set("agent agent_pool topic provider context_projection journal event_stream telemetry output_sink "
                "host user remote_channel tool extension subagent external_runtime".split()),
    "retention=": set("ephemeral run_scoped session_scoped durable persistent host_policy".split()),
    "id": "id", **SPOKEN,
}
ENTITY = {
    "kind": set("run turn attempt agent agent_pool topic event message wake_condition context_contribution "
                "context_item context_projection content artifact capability package_sidecar runtime_package "
                "policy_decision effect effect_intent effect_result tool_call approval_request stream_rule "
                "realtime_session hook execution_environment child_artifact subagent_run extension_action "
                "output_delivery".split()),
    "id": "id", "source?": SOURCE, **NOTED,
}
POLICY = {
    "kind": set("approval permission sandbox context privacy retention redaction runtime_package host".split()),
    "id": "id", "version?": "text",
}
INTENT = {
    "effect_id": "id", "subject_ref": ENTITY, "source": SOURCE, "destination?": DESTINATION,
    "kind": set("provider_request tool_execution approval_dispatch memory_write extension_action output_delivery "
                "file_write process_start process_signal isolated_process_start child_agent_start "
                "run_message_delivery child_artifact_shutdown detach_transfer hook_mutation".split()),
    "policy_refs=": [POLICY], "idempotency_key?": "id", "dedupe_key?": "id", "content_refs=": ["id"],
    "redacted_summary": "text",
}
RESULT = {
    "effect_id": "id", "external_operation_id?": "text", "reconciliation_ref?": "text", "error_ref?": "text",
    "terminal_status": set("completed failed timed_out cancelled denied_before_execution unknown".split()),
    "content_refs=": ["id"], "redacted_summary": "text",
}
FACTORS = [{"!": True, "group": "id", "count": "count"}]
ASKED = {
    "approval_request_id": "id", "approval_dispatch_effect_id": "id", "run_id": "id", "session_id?": "id",
    "agent_id": "id", "turn_id": "id", "tool_call_id": "id", "source": SOURCE, "destination": DESTINATION,
    "canonical_tool_name": "text", "tool_source": SOURCE, "requested_args_ref": "id",
    "effect_class": set("Read Write Process Network ApprovalDispatch OutputDelivery".split()),
    "risk_class": set("Low Medium High Critical".split()), "redacted_args_summary": "text",
    "policy_refs": [POLICY], "dispatcher_scope": set("Host SourceScoped Headless".split()),
    "timeout_ms": "number", "allowed_decisions": [set("Approved ApprovedForSession Denied".split())],
    "created_at_millis": "number", "runtime_package_fingerprint": "text", "fingerprint?": "digest",
    "rendering_digest?": "digest",
    "presentation?": {"summary": "text", "reason": "text", "note?": "text", "asked_summary": "text",
                      "asked_reason": "text", "changed_by": ["id"]},
    "hold_policy?": {"!": True, "factors": FACTORS, "exclude=": ["id"],
                     "escalate=": [{"!": True, "after_ms": "number", "factors": FACTORS}]},
}
APPROVER = {
    "surface": set("tui rest chat terminal cli mcp web webhook".split()), "id": "text", "display": "text",
}
EDIT = {
    "by": APPROVER, "asked_fingerprint?": "digest", "asked_rendering_digest?": "digest", "fingerprint": "digest",
    "rendering_digest": "digest", "args_ref": "id", "redacted_args_summary": "text",
}
VOTE = {
    "decision": {"approve", "deny"}, "reason?": "text", "approver": APPROVER, "on_behalf_of?": "text",
    "groups=": ["text"], "fingerprint?": "digest", "at": "text",
}
GRANT = {
    "agent_id": "id", "session": "id", "canonical_tool_name": "text", "manifest_digest": "text",
    "policy_digest": "digest", "arguments=": ("digest",), "any_value_of=": ["text"], "max_uses": "number",
    "expires_at_millis": "number",
}
DECIDED = {"reason?": "text", "decided_at_millis?": "number", "fingerprint?": "digest", "rendering_digest?": "digest"}
DECISIONS = {
    "approved": {"actor_ref": SOURCE, **DECIDED},
    "approved_for_session": {"actor_ref": SOURCE, "grant?": GRANT, **DECIDED},
    "denied": {"reason_code": "text", "actor_ref?": SOURCE, **DECIDED},
}
APPROVALS = {
    "requested": {"request": ASKED},
    "dispatch_intent": {"request_id": "id", "effect_intent": INTENT},
    "dispatch_result": {
        "request_id": "id", "effect_result": RESULT,
        "lifecycle_status": set("requested dispatch_intent_recorded dispatched approved approved_for_session denied "
                                "timed_out cancelled dispatcher_unavailable recovery_required".split()),
    },
    "responded": {"request_id": "id", "decision": {"decision": set(DECISIONS)}, "votes=": [VOTE], "edit?": EDIT},
    "denied": {"request_id": "id", "reason_code": "text", "actor_ref?": SOURCE, "reason?": "text"},
}
RECORD = {
    "journal_seq": "number", "record_id": "text", "agent_id": "text", "timestamp_millis": "number",
    "related_refs=": [{"kind": "text", "id": "text"}], "payload": {"type": "text"},
}
EFFECT = {"effect_id": "text", "terminal_status?": "text", "reconciliation_ref?": "any"}
# What any payload has that the rules look at; and what has to be there of the field's `type`.
LOOKED_AT = {
    "tool_call_id?": "text", "canonical_tool_name?": "text", "effect_intent?": EFFECT, "effect_result?": EFFECT,
    "fingerprint?": "digest", "grant_use?": "number", "policy_refs=": [{"id": "text"}],
    "sidecar_refs=": [{"content_hash?": "text"}], "record_type?": "text", "effect_id?": "text",
    "hook_id?": "text", "payload?": {"type": "text"}, "unsafe_pending=": [EFFECT], "new_key?": "text",
}
PAYLOADS = {
    "tool": {"tool_call_id": "text", "canonical_tool_name": "text"}, "approval": {"record_type": set(APPROVALS)},
    "hold": {}, "effect_intent": {"effect_id": "text"}, "effect_result": {"effect_id": "text"},
    "hook": {"hook_id": "text"}, "recovery": {}, "log_key_rotation": {"new_key": "text"},
}


def fits(value, form):
    if isinstance(form, str):
        return KINDS[form](value)
    if isinstance(form, set):
        return isinstance(value, str) and value in form
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if not isinstance(value, dict):
        return False
    if isinstance(form, tuple):
        return all(fits(item, form[0]) for item in value.values())
    names = {name.rstrip("?="): name for name in form}
    if any(name in names or "!" in form for name in getattr(value, "twice", ())):
        return False
    if "!" in form and not set(value) < set(names):
        return False
    return all(
        fits(value[name], form[full]) or (full.endswith("?") and value[name] is None)
        if name in value else full.endswith(("?", "=", "!"))
        for name, full in names.items()
    )


def trimmed(value, form):
    """The object without fields that are not known, or say nothing."""
    names = {name.rstrip("?="): inner for name, inner in form.items()}
    return {
        name: trimmed(found, names[name]) if isinstance(found, dict) else found
        for name, found in value.items() if name in names and found is not None
    }


def policy_fits(policy):
    """What the form alone does not say of a request's policy."""
    steps = policy.get("escalate", [])
    after = [0, *(step["after_ms"] for step in steps)]
    counts = [sum(factor["count"] for factor in factors)
              for factors in (policy["factors"], *(step["factors"] for step in steps))]
    return all(0 < count <= 64 for count in counts) and all(a < b for a, b in zip(after, after[1:]))


def plain(decision):
    """Whether a decision can be read with all that is in it: its word may stand behind the rest."""
    try:
        json.dumps(decision, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return deepest(decision) < MAX_DEPTH - 2


def readable(line):
    """A record, as far as the rules look at it."""
    record = parse(line, strict=False)
    if not fits(record, RECORD):
        raise Unusable("no record")
    payload, good = record["payload"], True
    if payload["type"] in PAYLOADS:
        good = fits(payload, LOOKED_AT) and fits(payload, PAYLOADS[payload["type"]])
    if good and payload["type"] == "approval":
        said = payload.get("record")
        good = fits(said, APPROVALS[payload["record_type"]])
        if good and payload["record_type"] == "responded":
            good = plain(said["decision"]) and fits(said["decision"], DECISIONS[said["decision"]["decision"]])
        if good and payload["record_type"] == "requested" and said["request"].get("hold_policy") is not None:
            good = policy_fits(said["request"]["hold_policy"])
    if good and payload["type"] == "hold" and payload.get("record_type") == "edited":
        good = fits(payload.get("record"), {"request_id": "id", "edit": EDIT})
    if not good:
        raise Unusable("a record of another form")
    return record


# ---- What the records say ---------------------------------------------------------------------

SLACK_MS = 2000


def met(request, fingerprint, votes, at):
    """Whether these answers are enough: approvals of this call by distinct people who may answer,
    with a seat for each that the request's policy asks for."""
    policy = request.get("hold_policy")
    if policy is None:
        return True
    barred = {request["agent_id"], request["source"]["id"], *policy.get("exclude", [])}
    people, counted = set(), []
    for vote in votes:
        own = {vote["approver"]["id"], vote.get("on_behalf_of")} - {None}
        if vote["decision"] == "approve" and vote.get("fingerprint") == fingerprint and not own & (people | barred):
            people |= own
            counted.append(vote.get("groups", []))
    since = at - request["created_at_millis"]
    steps = [step for step in policy.get("escalate", []) if step["after_ms"] <= max(since, 0)]
    for factors in [policy["factors"], *(step["factors"] for step in steps)]:
        seats = [factor["group"] for factor in factors for _ in range(factor["count"])]
        taken = {}

        def seat(vote, tried):
            for at, group in enumerate(seats):
                if group in counted[vote] and at not in tried:
                    tried.add(at)
                    if at not in taken or seat(taken[at], tried):
                        taken[at] = vote
                        return True
            return False

        if seats and sum(seat(vote, set()) for vote in range(len(counted))) == len(seats):
            return True
    return False


class Story:
    """Whether the rules were kept; the same rules as `countersign audit verify`."""

    def __init__(self):
        self.effects, self.ended, self.calls, self.asked = {}, set(), set(), {}
        self.asking, self.hooks, self.listed = set(), set(), set()
        self.open, self.unknown, self.restarted = {}, {}, 0

    def announce(self, effect, seq, waits=False):
        if effect in self.effects:
            raise Broken("effect_repeated", seq)
        self.effects[effect] = seq
        if not waits:
            self.open[effect] = seq

    def end(self, effect, seq):
        if effect not in self.effects:
            raise Broken("effect_without_intent", seq)
        if effect in self.ended:
            raise Broken("result_repeated", seq)
        self.ended.add(effect)
        self.open.pop(effect, None)

    def take(self, record, seq):
        payload = record["payload"]
        kind = payload["type"]
        if kind == "tool":
            self.tool(record, payload, seq)
        elif kind == "approval":
            self.approval(record, payload["record_type"], payload["record"], seq)
        elif kind == "hold" and payload.get("record_type") == "edited":
            said = payload["record"]
            asked = self.asked.get(said["request_id"])
            if asked and not asked["decided"]:
                asked["edits"].append(trimmed(said["edit"], EDIT))
        elif kind == "effect_intent":
            self.announce(payload["effect_id"], seq)
        elif kind == "effect_result":
            self.end(payload["effect_id"], seq)
        elif kind == "hook":
            if (payload.get("payload") or {}).get("type") == "registered":
                self.hooks.add(payload["hook_id"])
            elif payload["hook_id"] not in self.hooks:
                raise Broken("hook_not_registered", seq)
        elif kind == "recovery":
            self.listed |= {effect["effect_id"] for effect in payload.get("unsafe_pending", [])}
            self.restarted = seq

    def tool(self, record, payload, seq):
        call, end = payload["tool_call_id"], payload.get("effect_result")
        if not end and payload.get("effect_intent"):
            if call in self.calls:
                raise Broken("effect_repeated", seq)
            self.calls.add(call)
            self.announce(payload["effect_intent"]["effect_id"], seq)
            self.release(record, payload, seq)
        if not end:
            return
        effect, status = end["effect_id"], end.get("terminal_status")
        if status == "denied_before_execution":
            if effect in self.effects:
                raise Broken("denied_after_intent", seq)
            return
        self.end(effect, seq)
        if status == "unknown" and end.get("reconciliation_ref") is None:
            self.unknown[effect] = seq

    def release(self, record, payload, seq):
        related = [r["id"] for r in record.get("related_refs", []) if r["kind"] == "approval_request"]
        if not related:
            needs = any(policy["id"] == "policy.approval" for policy in payload.get("policy_refs", []))
            if needs or payload["tool_call_id"] in self.asking:
                raise Broken("intent_without_decision", seq)
            return
        asked = self.asked.get(related[0])
        if asked and asked["over"] and asked["used"]:
            raise Broken("approval_reused", seq)
        if not asked or not asked["decided"] or not asked["releases"]:
            raise Broken("intent_without_decision", seq)
        request, grant = asked["request"], asked["grant"]
        at = record["timestamp_millis"]
        if asked["revoked"] is not None and at > asked["revoked"] + SLACK_MS:
            raise Broken("approval_revoked", seq)
        number = payload.get("grant_use")
        if number is None:
            if asked["used"]:
                raise Broken("approval_reused", seq)
            asked["used"] = True
            self.retire(asked)
            if request["tool_call_id"] != payload["tool_call_id"]:
                raise Broken("approval_of_other_call", seq)
            if asked["fingerprint"] != payload.get("fingerprint"):
                raise Broken("fingerprint_mismatch", seq)
            return
        if not grant:
            raise Broken("grant_exceeded", seq)
        manifests = [s["content_hash"] for s in payload.get("sidecar_refs", []) if s.get("content_hash") is not None]
        if not (
            1 <= number <= grant["max_uses"] and at < grant["expires_at_millis"] + SLACK_MS
            and grant["agent_id"] == record["agent_id"]
            and grant["canonical_tool_name"] == payload["canonical_tool_name"]
            and manifests[:1] == [grant["manifest_digest"]]
        ):
            raise Broken("grant_exceeded", seq)
        if number in asked["uses"]:
            raise Broken("approval_reused", seq)
        asked["uses"].add(number)

    def retire(self, asked):
        """A request that has ended, and can release nothing more, is over."""
        asked["over"] = asked["closed"] and not asked["grant"] and (asked["used"] or not asked["releases"])

    def approval(self, record, kind, said, seq):
        if kind == "requested":
            request = said["request"]
            if request["approval_request_id"] in self.asked:
                raise Broken("request_repeated", seq)
            self.asking.add(request["tool_call_id"])
            self.asked[request["approval_request_id"]] = {
                "request": request, "dispatched": False, "decided": False, "releases": False,
                "grant": None, "revoked": None, "used": False, "uses": set(), "closed": False, "over": False,
                "edits": [], "fingerprint": None,
            }
            return
        asked = self.asked.get(said["request_id"])
        if not asked:
            raise Broken("request_missing", seq)
        if asked["over"]:
            # Taking back what was used is of no consequence, and no harm.
            if kind != "denied":
                raise Broken("decision_repeated", seq)
            return
        if kind == "dispatch_intent":
            asked["dispatched"] = True
            self.announce(said["effect_intent"]["effect_id"], seq, waits=True)
        elif kind == "responded":
            self.decide(asked, record, said, seq)
        elif kind == "denied":
            if asked["releases"]:
                asked["revoked"] = record["timestamp_millis"] if asked["revoked"] is None else asked["revoked"]
            asked["decided"] = True
        elif kind == "dispatch_result":
            if (said["lifecycle_status"] in ("approved", "approved_for_session")) != asked["releases"]:
                raise Broken("outcome_mismatch", seq)
            self.end(said["effect_result"]["effect_id"], seq)
            asked["closed"] = True
            self.retire(asked)

    def decide(self, asked, record, said, seq):
        decision, votes, edit = said["decision"], said.get("votes", []), said.get("edit")
        request, word = asked["request"], decision["decision"]
        if asked["decided"]:
            raise Broken("decision_repeated", seq)
        if not asked["dispatched"]:
            raise Broken("decision_not_asked", seq)
        actor = decision.get("actor_ref")
        if actor:
            if actor["id"] in (request["source"]["id"], request["agent_id"]):
                raise Broken("decision_own_request", seq)
            if actor["kind"] not in ("user", "host", "remote_channel"):
                raise Broken("decision_not_allowed", seq)
        offered = {"approved": "Approved", "approved_for_session": "ApprovedForSession", "denied": "Denied"}[word]
        if offered not in request["allowed_decisions"]:
            raise Broken("decision_not_allowed", seq)
        at, given = decision.get("decided_at_millis"), word != "denied"
        until = request["created_at_millis"] + request["timeout_ms"]
        if given and (record["timestamp_millis"] if at is None else at) >= until:
            raise Broken("decision_late", seq)
        if at is not None and at < request["created_at_millis"]:
            raise Broken("decision_late", seq)
        # What was put before the person: the call as it was asked, or as an approver edited it.
        shown = edit or request
        if edit:
            if edit["by"]["id"] in (request["source"]["id"], request["agent_id"]):
                raise Broken("decision_own_request", seq)
            if trimmed(edit, EDIT) not in asked["edits"] or edit.get("asked_fingerprint") != request.get("fingerprint"):
                raise Broken("fingerprint_mismatch", seq)
            if edit.get("asked_rendering_digest") != request.get("rendering_digest"):
                raise Broken("rendering_mismatch", seq)
        fingerprint = shown.get("fingerprint")
        if given and not met(request, fingerprint, votes, record["timestamp_millis"] if at is None else at):
            raise Broken("quorum_not_met", seq)
        if decision.get("fingerprint") != fingerprint:
            raise Broken("fingerprint_mismatch", seq)
        if decision.get("rendering_digest") != shown.get("rendering_digest"):
            raise Broken("rendering_mismatch", seq)
        asked.update(decided=True, releases=given, grant=decision.get("grant") if given else None, fingerprint=fingerprint)

    def finish(self):
        missed = {effect: seq for effect, seq in self.open.items() if seq < self.restarted}
        for effect, seq in {**missed, **self.unknown}.items():
            if effect not in self.listed:
                raise Broken("outcome_not_listed", seq)


HEADER = {"!": True, "version": "number", "origin": "text", "keys": ["text"], "first": "number", "peaks=": ["text"]}
END = {"!": True, "records": "number", "checkpoints": "number"}
MAX_LINE = 256 * 1024


def forked(pins, tree):
    if any(pin.size == tree.size and pin.root != tree.root() for pin in pins):
        raise Broken("forked", tree.size)


def log(data, key_text, pinned=None):
    key = Key(key_text)
    lines = data.split(b"\n")
    whole = len(lines) > 1 and lines.pop() == b""
    if not lines[0].startswith(b'{"bundle_'):
        raise Unusable("the first line is no header")
    header = parse(lines[0])
    if not fits(header, {"!": True, "bundle_header": HEADER}):
        raise Unusable("the first line is no header")
    header = header["bundle_header"]
    if header["version"] != 1 or header["origin"] != key.name:
        raise Unusable("another version, or another log")
    first = header["first"]
    try:
        peaks = [unbase64(peak) for peak in header.get("peaks", [])]
    except ValueError as error:
        raise Unusable("`peaks` do not fit") from error
    if first < 1 or any(len(peak) != 32 for peak in peaks):
        raise Unusable("`first` or `peaks` do not fit")
    tree, story = Tree(first - 1, peaks), Story() if first == 1 else None
    try:
        pins = [checkpoint(pinned, key)] if pinned else []
    except Broken as error:
        raise Unusable("the checkpoint kept elsewhere is none of this log") from error
    if any(0 < pin.size < tree.size for pin in pins):
        raise Unusable("the checkpoint kept elsewhere is older than where the bundle begins")
    covered, follows, notes, end, unsigned = 0, None, 0, None, False
    forked(pins, tree)
    for line in lines[1:]:
        if end is not None or len(line) > MAX_LINE:
            raise Broken("bundle_damaged", tree.size)
        if not line.startswith(b'{"bundle_'):
            tree.push(leaf(line))
            seq = tree.size
            if not story and b"log_key_rotation" not in line:
                forked(pins, tree)
                continue
            try:
                record = readable(line)
                number, payload = record["journal_seq"], record["payload"]
            except Unusable:
                if not story:
                    forked(pins, tree)
                    continue
                raise Broken("record_unreadable", seq) from None
            if number != seq:
                raise Broken("record_missing" if number > seq else "record_misfiled", seq)
            if payload["type"] == "log_key_rotation":
                try:
                    new = Key(payload["new_key"])
                except Unusable:
                    raise Broken("checkpoint_invalid", seq) from None
                if new.name != key.name:
                    raise Broken("checkpoint_invalid", seq)
                if (new.name, new.bytes) == (key.name, key.bytes):
                    unsigned = False
                else:
                    follows = new
            if story:
                story.take(record, seq)
            forked(pins, tree)
            continue
        try:
            control = parse(line)
        except Unusable:
            raise Broken("bundle_damaged", tree.size) from None
        if fits(control, {"!": True, "bundle_checkpoint": "text"}):
            notes += 1
            found = Checkpoint(control["bundle_checkpoint"])
            by = found.by(key)
            if not by:
                if covered:
                    raise Broken("checkpoint_invalid", tree.size)
                # The key may be a later one, which the log names further on.
                unsigned = True
            if found.size != tree.size:
                raise Broken("record_missing", tree.size)
            if found.root != tree.root():
                raise Broken("root_mismatch", tree.size)
            if by:
                covered = found.size
                if follows:
                    if not found.by(follows):
                        raise Broken("checkpoint_invalid", tree.size)
                    key, follows = follows, None
        elif fits(control, {"!": True, "bundle_end": END}):
            end = control["bundle_end"]
        else:
            raise Broken("bundle_damaged", tree.size)
    if end != {"records": tree.size - first + 1, "checkpoints": notes} or not whole:
        raise Broken("bundle_damaged", tree.size)
    if unsigned:
        raise Broken("checkpoint_invalid", covered)
    if covered < tree.size:
        raise Broken("not_covered", covered + 1)
    if any(pin.size > tree.size for pin in pins):
        raise Broken("forked", tree.size)
    if story:
        story.finish()


# ---- The command line -------------------------------------------------------------------------


def verdict(work):
    try:
        work()
        return "whole", None
    except Broken as broken:
        return "broken", broken.args[0]
    except Unusable as problem:
        return "unusable", str(problem)


def cases(paths):
    """Holds this verifier against cases with their verdicts."""
    wrong = count = 0
    for path in paths:
        kind = {"bundles": log, "rules": log, "receipts": receipt, "critics": critic}[path.rsplit("/", 1)[-1].split(".")[0]]
        with open(path, "rb") as lines:
            for line in lines:
                case = json.loads(line)
                more = [case["checkpoint"]] if "checkpoint" in case else []
                found, rule = verdict(lambda: kind(case["input"].encode(), case["key"], *more))
                count += 1
                expected = case["expect"]
                if found != expected["verdict"] or (found == "broken" and rule != expected["rule"]):
                    wrong += 1
                    print(f"{path}: {case['case']}: {found} {rule}, not {expected}")
    print(f"{count} cases, {wrong} wrong")
    return 1 if wrong else 0


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = arguments.add_subparsers(dest="what", required=True)
    for name in ("log", "receipt", "critic"):
        one = what.add_parser(name)
        one.add_argument("file")
        one.add_argument("--key", required=True)
        one.add_argument("--checkpoint" if name == "log" else "--anchor", dest="pin")
        one.add_argument("--chain-id")
    what.add_parser("cases").add_argument("files", nargs="+")
    given = arguments.parse_args()
    if given.what == "cases":
        return cases(given.files)
    with open(given.file, "rb") as file:
        data = file.read()
    pin = None
    if given.pin:
        with open(given.pin, encoding="utf-8") as file:
            pin = file.read()

    def work():
        if given.what == "log":
            log(data, given.key, pin)
        elif given.what == "receipt":
            receipt(data, given.key)
        else:
            critic(data, given.key, read_anchor(parse(pin)) if pin else None, given.chain_id)

    found, why = verdict(work)
    print(found if why is None else f"{found}: {why}")
    return {"whole": 0, "broken": 1, "unusable": 2}[found]


if __name__ == "__main__":
    sys.exit(main())
