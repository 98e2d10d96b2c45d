"""What a compiled step takes, as a table for people."""

from training.compilation.step import CompiledStep

GIB = 2**30


def report_of(compiled: CompiledStep) -> str:
    """Returns memory, arithmetic and collectives of a chip, a line each."""
    lines = [
        f"{compiled.chips} x {compiled.chip}, compiled in {compiled.seconds:.0f} s; of one chip:",
        f"  state and batch     {compiled.argument_bytes / GIB:9.2f} GiB",
        f"  temporaries         {compiled.temporary_bytes / GIB:9.2f} GiB",
        f"  model arithmetic    {compiled.flops / 1e12:9.2f} TFLOP a step",
    ]
    if compiled.collectives is None:
        lines.append("  collectives         not known: this jaxlib cannot read the program")
    for each in compiled.collectives or ():
        lines.append(
            f"  {each.kind:18}  {each.bytes / GIB:9.2f} GiB in {each.count} operations, "
            f"{each.exposed_bytes / GIB:.2f} GiB while nothing else is computed"
        )
    return "\n".join(lines)
