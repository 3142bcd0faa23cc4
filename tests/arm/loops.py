"""Multiply-accumulates per cycle of the innermost loops of functions, by llvm-mca. `mca` is the way in."""

import re
import subprocess
import sys

CPUS = ["cortex-a53", "cortex-a55", "cortex-a57", "neoverse-n1"]
DOT_PRODUCT = {"cortex-a55", "cortex-a75", "cortex-a76", "cortex-a78", "neoverse-n1"}
# Products of one result lane of each instruction.
PRODUCTS = [(r"[su]dot|usdot", 4), (r"[us]mmla", 8), (r"[su]ml[as]l2?|[su]mull2?|ml[as]|mul", 1)]
LANES = {"16b": 16, "8b": 8, "8h": 8, "4h": 4, "4s": 4, "2s": 2, "2d": 2}
ITERATIONS = 200


def products(line):
    """Multiplications of bytes or of wider integers in an instruction on vectors."""
    found = re.match(r"(\w+)\s+v\d+\.(\w+)", line)
    if not found or found[2] not in LANES:
        return 0
    each = [count for names, count in PRODUCTS if re.fullmatch(names, found[1])]
    return each[0] * LANES[found[2]] if each else 0


def functions(asm):
    """Names of functions, as the compiler wrote them, and their lines without comments and directives."""
    name, body = None, []
    for line in asm.splitlines():
        line = line.split("//")[0].strip()
        if found := re.match(r"\.type\s+(\S+),@function", line):
            name, body = found[1], []
        elif line.startswith(".Lfunc_end") and name:
            yield name, body
            name = None
        elif line and (not line.startswith(".") or line.endswith(":")):
            body.append(line)


def named(name, path):
    """Whether a mangled name holds the parts of a path behind one another."""
    return "".join(f"{len(part)}{part}" for part in path.split("::")) in name or path in name


def innermost(body):
    """Loops with no other loop within, as (label, lines)."""
    places = {line[:-1]: at for at, line in enumerate(body) if line.endswith(":")}
    spans = []
    for at, line in enumerate(body):
        found = re.match(r"(?:b(?:\.\w+)?|cbn?z|tbn?z)\s.*?(\S+)$", line)
        if found and places.get(found[1], at) < at:
            spans.append((places[found[1]], at, found[1]))
    for first, last, label in spans:
        within = [s for s in spans if (s[0], s[1]) != (first, last) and first <= s[0] and s[1] <= last]
        if not within:
            yield label, [line for line in body[first : last + 1] if not line.endswith(":")]


def cycles(mca, cpu, lines):
    """Cycles of one round of a loop in steady state, or None where the core lacks an instruction."""
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    command += ["-instruction-info=0", "-resource-pressure=0"]
    if cpu in DOT_PRODUCT:
        command.append("-mattr=+dotprod")
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
    if "instruction requires" in done.stderr:
        return None
    if done.returncode:
        sys.exit(done.stderr)
    return int(re.search(r"Total Cycles:\s+(\d+)", done.stdout)[1]) / ITERATIONS


def peak(mca, cpu):
    """Products of bytes per cycle where nothing else is done."""
    product = "sdot v{}.4s, v30.16b, v31.16b" if cpu in DOT_PRODUCT else "smlal v{}.8h, v30.8b, v31.8b"
    lines = [product.format(register) for register in range(24)]
    return sum(map(products, lines)) / cycles(mca, cpu, lines)


def main():
    mca, asm, path, *cpus = sys.argv[1:]
    peaks = {cpu: peak(mca, cpu) for cpu in cpus or CPUS}
    found = False
    for name, body in functions(open(asm).read()):
        if not named(name, path):
            continue
        for label, lines in innermost(body):
            count = sum(map(products, lines))
            if not count:
                continue
            found = True
            print(f"{name} {label}: {len(lines)} instructions, {count} multiply-accumulates")
            for cpu, most in peaks.items():
                taken = cycles(mca, cpu, lines)
                if taken is None:
                    print(f"    {cpu:12} lacks an instruction")
                else:
                    rate = count / taken
                    print(f"    {cpu:12} {taken:7.2f} cycles {rate:6.2f} per cycle, {rate / most:4.0%} of {most:.0f}")
    if not found:
        sys.exit(f"{asm}: no loop of a function {path} multiplies and accumulates vectors")


if __name__ == "__main__":
    main()
