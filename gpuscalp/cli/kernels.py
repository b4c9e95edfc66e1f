"""``gpuscalp kernels``: compile ahead what a session would compile at its start, and see what is kept."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gpuscalp.cli.app import kernels_app
from gpuscalp.cli.output import JsonFlag, emit, progress, write_error
from gpuscalp.errors import ConfigError


@kernels_app.command("compile")
def compile_(
    arch: Annotated[
        list[str] | None,
        typer.Option(help="Compute capability, such as 90; may be repeated. CUDA for these only."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Compile ahead: for this machine, or for the GPUs that are named.

    Without --arch: the CPU's kernels and, where a GPU can be used, the CUDA kernels for it. With --arch no
    GPU and no driver are needed, only NVRTC. What is there already is not compiled again. Exit code 4 where
    what was compiled could not be kept.
    """
    from gpuscalp.warm import compile_all

    with progress("Compiling") as told:
        answer = compile_all(arch or (), told=told)
    lost_count = sum(not row["kept"] for row in answer["kernels"])
    if not lost_count:
        emit(answer, json=json, text=lambda: _compiled(answer))
        return
    error = ConfigError(
        f"{lost_count} of {len(answer['kernels'])} CUDA kernels could not be kept: every start compiles them",
        where="GPUSCALP_KERNEL_CACHE",
        value=str(answer["folder"]),
        fix="name a folder that can be written to with GPUSCALP_KERNEL_CACHE",
    )
    emit(answer | {"error": error.to_dict()}, json=json, text=lambda: _compiled(answer))
    if not json:
        write_error(error.to_dict(), json=False)
    raise typer.Exit(error.exit_code)


@kernels_app.command("list")
def list_(
    clear: Annotated[bool, typer.Option("--clear", help="Delete them, after they were listed.")] = False,
    json: JsonFlag = False,
) -> None:
    """Say which compiled CUDA kernels are kept, and where."""
    from gpuscalp.warm import describe_cache

    answer = describe_cache(clear=clear)
    emit(answer, json=json, text=lambda: _kept(answer))


def _compiled(answer: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table("kernel", "arch", "bytes", "registers", "spilled, bytes", "seconds", "")
    for row in answer["kernels"]:
        table.add_row(
            row["kernel"],
            row["arch"],
            f"{row['bytes']:,}",
            _or_dash(row["registers"]),
            _or_dash(row["spill_bytes"]),
            f"{row['seconds']:.3f}",
            "was there" if row["cached"] else "compiled" if row["kept"] else "not kept",
        )
    lines = []
    if not answer["kernels"]:
        lines = ["No CUDA kernels: no GPU can be used here (gpuscalp device says why; --arch needs none)."]
    elif all(row["kept"] for row in answer["kernels"]):
        lines = [f"CUDA kernels are kept in {answer['folder']}"]
    if answer["cpu"] is not None:
        lines.append(f"CPU kernels: {answer['cpu']['seconds']:.1f} s, kept in {answer['cpu']['folder']}")
    return Group(*([table] if answer["kernels"] else []), *lines)


def _kept(answer: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table("kernel", "for", "bytes", "written, UTC", "")
    for row in answer["entries"]:
        table.add_row(
            row["kernel"],
            row["target"],
            f"{row['bytes']:,}",
            row["written"],
            "" if row["whole"] else "damaged: will be compiled anew",
        )
    ending = f"{len(answer['entries'])} in {answer['folder']}, {answer['bytes']:,} bytes"
    if answer["cleared"]:
        ending += f"; {answer['cleared']} deleted"
    return Group(*([table] if answer["entries"] else []), ending)


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)
