"""The parameters of a component, whatever its files are: diffusers' own set, or a single file in another's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safelight.engine.weights.files import FileTensor, open_file, open_tensors
from safelight.engine.weights.packed_weights import open_packed
from safelight.errors import UnsupportedModel
from safelight.model.heads.library_formats import library_in_config
from safelight.model.single_files.names import Source
from safelight.model.single_files.parts import check_complete, read_part
from safelight.model.weight_files import Network, find_weights


def component_tensors(folder: Path, network: Network, config: Mapping[str, Any]) -> dict[str, FileTensor]:
    """Parameter -> its numbers, mapped, for a component of a checkpoint's folder with that config.

    Of a single file all parameters, and each tensor of the file is one of them or known to matter to no picture. Of a
    set what it holds: the network tells what it lacks. Raises UnsupportedModel or ModelLoadError.
    """
    weights, paths = find_weights(folder, network)
    if not weights.is_single:
        library = library_in_config(config)
        if library is not None:
            return _renamed(open_packed(paths, library))
        return _renamed({name: tensor for path in paths for name, tensor in open_file(path).items()})
    part = read_part(paths[0], network.name)
    check_complete(part, config)
    table = part.table(config)
    found = open_tensors(part.path, part.head, part.scales, {source.name for source in table.values()})
    return {name: _placed(found[source.name], source) for name, source in table.items()}


def _placed(tensor: FileTensor, source: Source) -> FileTensor:
    if source.is_convolution and len(tensor.shape) > 2:
        tensor = tensor.reshaped(tensor.shape[:2])
    if source.rows is None:
        return tensor
    if not tensor.shape or max(stop for _, stop in source.rows) > tensor.shape[0]:
        raise UnsupportedModel(
            f"{tensor.place} has the shape {list(tensor.shape)}, too small for FLUX.1's; use another file"
        )
    return tensor.rows(source.rows)


def _renamed(tensors: Mapping[str, FileTensor]) -> dict[str, FileTensor]:
    """CLIP's text model stood under `text_model.` up to transformers 4."""
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
