"""What the commands of a session answer, in words."""

from __future__ import annotations

from typing import Any


def swapped(answer: dict[str, Any]) -> str:
    from gpuscalp.registry.names import SHORT

    if answer["bundle"] is None:
        return "No model is in the shadow any more."
    does = "leads" if answer["role"] == "lead" else "is in the shadow"
    return f"{answer['bundle'][:SHORT]} {does}, from the frame after {answer['after_ns'] or 'none'} on."


def ended(status: dict[str, Any]) -> str:
    result = "Paper result" if status["broker"] == "paper" else "Result"
    lines = [
        f"Stopped: {status['reason']}. {status['frames']:,} frames in {status['uptime_s']:.0f} s.",
        f"{result} {status['pnl_usdt']:+,.4f} USDT after {status['fees_usdt']:,.4f} USDT of fees,"
        f" {status['market']} market; the gate is {status['state']}.",
    ]
    held = ", ".join(f"{each['symbol']} {each['qty']:+g}" for each in status["positions"])
    if held:
        lines.append(f"Still held: {held}. The next start goes on with it.")
    lines.append(f"Session: {status['session']} (gpuscalp verify checks it)")
    return "\n".join(lines)


def replayed(answer: dict[str, Any]) -> str:
    return (
        f"{answer['messages']:,} messages, {answer['frames']:,} frames in {answer['seconds']:.1f} s."
        f" Paper result {answer['pnl_usdt']:+,.4f} USDT, {answer['last_order_id']} orders."
        f"\nSession: {answer['session']}"
    )


def verified(answer: dict[str, Any]) -> str:
    differing = answer["differing"] + answer["verdicts_differing"]
    lines = [
        f"{answer['frames']:,} frames, {answer['rows']:,} rows, {answer['records']:,} records:"
        f" {differing} differ."
    ]
    if differing:
        lines.append(f"The first: {answer['first']}. By kind: {answer['differing_by_kind']}")
    if answer["unproved_differing"]:
        lines.append(
            f"A GPU was wrong about {answer['unproved_differing']:,} rows on which no order could follow."
        )
    if not answer["ended"]:
        lines.append(f"The journal has no clean end; {answer['torn_bytes']} bytes of it are torn.")
    return "\n".join(lines)
