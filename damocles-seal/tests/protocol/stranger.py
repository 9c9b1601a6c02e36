"""A processor of protocol v1 for 2 KiB sectors. Its proofs are digests."""
import hashlib
import json
import os
import sys


def pair(left, right):
    digest = bytearray(hashlib.sha256(left + right).digest())
    digest[31] &= 0x3F
    return bytes(digest)


def tree_d(task):
    assert task["registered_proof"] == "StackedDrg2KiBV1_1", task["registered_proof"]
    with open(task["staged_file"], "rb") as staged:
        data = staged.read()
    level = [data[at:at + 32] for at in range(0, len(data), 32)]
    nodes = list(level)
    while len(level) > 1:
        level = [pair(level[at], level[at + 1]) for at in range(0, len(level), 2)]
        nodes += level
    # "xb": what lies there is the pool's to remove.
    with open(os.path.join(task["cache_dir"], "sc-02-data-tree-d.dat"), "xb") as tree:
        tree.write(b"".join(nodes))
    return True


def c2(task):
    if not isinstance(task["c1out"], dict):
        raise ValueError("these are no nodes")
    statement = [task["c1out"], task["prover_id"], task["sector_id"], task["miner_id"]]
    text = json.dumps(statement, separators=(",", ":"), sort_keys=True)
    return {"proof": list(hashlib.sha256(text.encode()).digest())}


def main(stage):
    work = {"tree_d": tree_d, "c2": c2}[stage]
    print(stage, "processor ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"id": request["id"], "err_msg": None, "output": None}
        try:
            answer["output"] = work(request["task"])
        except Exception as error:
            answer["err_msg"] = str(error)
        print(json.dumps(answer), flush=True)


main(sys.argv[1])
