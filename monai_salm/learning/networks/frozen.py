"""The frozen copy of a network that noise steps use."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Tracer(torch.fx.Tracer):
    """Treats convolutions, also of this package, as leaves: batch normalisation is folded into them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _CONVOLUTIONS) or super().is_leaf_module(m, module_qualified_name)


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy for noise steps: evaluation mode, no parameter gradients, batch normalisation folded into convolutions.

    Folding halves the memory traffic on the CPU. A model that cannot be traced is copied unfolded.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        return _fold_batch_norm(torch.fx.GraphModule(frozen, _Tracer().trace(frozen)))
    except Exception:  # tracing fails in many ways; the unfolded copy is correct, only slower
        return copy.deepcopy(model).eval().requires_grad_(False)


def _fold_batch_norm(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    modules: dict[str, Any] = dict(graph.named_modules())
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    used = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], norms):
            continue
        source, norm = node.args[0], modules[node.target]
        foldable = source.op == "call_module" and isinstance(modules[source.target], _CONVOLUTIONS)
        # A shared module, or an output with other readers, must keep its values.
        if not foldable or len(source.users) > 1 or used.count(source.target) > 1 or norm.running_mean is None:
            continue
        folded = fuse_conv_bn_eval(modules[source.target], norm)
        parent, _, leaf = source.target.rpartition(".")
        setattr(modules[parent] if parent else graph, leaf, folded)
        modules[source.target] = folded
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    graph.delete_all_unused_submodules()
    return graph.requires_grad_(False)
