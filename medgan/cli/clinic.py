"""To and from the archives of a hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medgan.cli.base import AsJson, Device, app, printed

__all__ = ["pull", "push", "serve_dicom"]

Address = "dicom://[CALLING@]AET@host:port or https://host/dicom-web"


@app.command()
def pull(
    peer: Annotated[str, typer.Argument(help=f"{Address}.")],
    out: Annotated[Path | None, typer.Argument(help="A folder; files land as STUDY/SERIES/INSTANCE.dcm.")] = None,
    patient: Annotated[str, typer.Option(help="PatientID.")] = "",
    study: Annotated[str, typer.Option(help="StudyInstanceUID.")] = "",
    series: Annotated[str, typer.Option(help="SeriesInstanceUID.")] = "",
    accession: Annotated[str, typer.Option(help="AccessionNumber.")] = "",
    modality: Annotated[str, typer.Option(help="DICOM's code, such as MR.")] = "",
    date: Annotated[str, typer.Option(help="Of the study: 20260131 or 20260101-20260131.")] = "",
    only_list: Annotated[bool, typer.Option("--list", help="Tell what there is, fetch nothing.")] = False,
    identity: Annotated[bool, typer.Option("--identity", help="Show patient identifiers and dates.")] = False,
    move_to: Annotated[str | None, typer.Option(help="Our AE title: have it sent there, by C-MOVE.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where we listen for C-MOVE.")] = 11112,
    host: Annotated[str | None, typer.Option(help="Our address for C-MOVE; the one facing PEER if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch series from a PACS, or list them: C-FIND and C-GET or C-MOVE, or DICOMweb."""
    from medgan.pull import described, exit_code, find, found_lines, pulled_lines
    from medgan.pull import pull as run

    keys = {"patient": patient, "study": study, "series": series, "accession": accession}
    keys |= {"modality": modality, "date": date}
    if only_list or out is None:
        found = find(peer, **keys)
        printed([described(one, identity=identity) for one in found], found_lines(found, identity=identity), as_json)
        raise typer.Exit(0 if found else 5)
    done = run(peer, out, **keys, move_to=move_to, port=port, host=host)
    printed([one.to_json(identity=identity) for one in done], pulled_lines(done), as_json)
    raise typer.Exit(exit_code(done))


@app.command()
def push(
    paths: Annotated[list[Path], typer.Argument(metavar="SERIES...", help="DICOM files, or folders of them.")],
    peer: Annotated[str, typer.Argument(help=f"{Address}.")],
    decompress: Annotated[
        bool, typer.Option("--decompress", help="Send compressed files as plain pixels where PEER takes no other.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send DICOM files to a PACS, and tell what became of each: C-STORE, or DICOMweb."""
    from medgan.push import exit_code, sent_json, sent_lines
    from medgan.push import push as run

    sent = run(paths, peer, decompress=decompress)
    printed(sent_json(sent), sent_lines(sent), as_json)
    raise typer.Exit(exit_code(sent))


@app.command(name="serve-dicom")
def serve_dicom(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where we listen.")],
    aet: Annotated[str, typer.Option(help="Our AE title.")],
    allow: Annotated[list[str], typer.Option(help="AE title of who may send; repeatable.")],
    send_to: Annotated[str, typer.Option(help=f"Where translations go: {Address}.")],
    folder: Annotated[Path, typer.Option(help="The queue, which survives restarts; it holds patients' scans.")],
    host: Annotated[str, typer.Option(help="The address that listens; others than this machine only if opened.")] = (
        "127.0.0.1"
    ),
    quiet: Annotated[float, typer.Option(min=0, help="Seconds without a new image after which a study is whole.")] = 30,
    device: Device = "auto",
) -> None:
    """Take studies over DICOM, translate what fits RUN, and send the derived series on, until stopped."""
    from medgan.serve_dicom import serve_dicom as run

    hearing: dict[str, Any] = {"port": port, "aet": aet, "allow": allow, "host": host}
    run(run_folder, folder, send_to=send_to, quiet_s=quiet, device=device, **hearing)
