"""A Llama computed in numpy from nothing but a GGUF file, as llama.cpp's graphs of `llama`, `deci` and `qwen2/3` do."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize


class Reference:
    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {t.name: np.asarray(dequantize(t.data, t.tensor_type)) for t in reader.tensors}
        self.kinds = {t.name: t.tensor_type.name for t in reader.tensors}
        self.architecture = self.fields["general.architecture"]

    def __getitem__(self, key):
        return self.fields[f"{self.architecture}.{key}"]

    def of_layer(self, key, layer):
        value = self[key]
        return value[layer] if isinstance(value, list) else value

    def logits(self, ids):
        x = self.tensors["token_embd.weight"][ids]
        for layer in range(self["block_count"]):
            x = self._layer(x, layer)
        x = self._norm(x, "output_norm")
        return x @ self.tensors.get("output.weight", self.tensors["token_embd.weight"]).T

    def _layer(self, x, i):
        if self.of_layer("attention.head_count", i):
            x = x + self._attention(self._norm(x, f"blk.{i}.attn_norm"), i)
        h = self._norm(x, f"blk.{i}.ffn_norm")
        gate = self._linear(h, f"blk.{i}.ffn_gate")
        return x + self._linear(gate / (1 + np.exp(-gate)) * self._linear(h, f"blk.{i}.ffn_up"), f"blk.{i}.ffn_down")

    def _attention(self, x, i):
        heads, kv_heads = (self.of_layer(f"attention.head_count{kv}", i) for kv in ("", "_kv"))
        width = self["attention.key_length"]
        q = self._rotated(self._linear(x, f"blk.{i}.attn_q").reshape(len(x), heads, width), f"blk.{i}.attn_q_norm")
        k = self._rotated(self._linear(x, f"blk.{i}.attn_k").reshape(len(x), kv_heads, width), f"blk.{i}.attn_k_norm")
        v = self._linear(x, f"blk.{i}.attn_v").reshape(len(x), kv_heads, width)
        k, v = (np.repeat(part, heads // kv_heads, axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(width)
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)
        return self._linear(mixed.reshape(len(x), -1), f"blk.{i}.attn_output")

    def _rotated(self, x, norm):
        """(time, heads, width); `llama` and `deci` rotate neighbours, `qwen2` and `qwen3` halves."""
        if f"{norm}.weight" in self.tensors:
            x = self._norm(x, norm)
        width = x.shape[-1]
        frequencies = self["rope.freq_base"] ** -(np.arange(0, width, 2) / width)
        frequencies = (
            frequencies
            / self.tensors.get("rope_freqs.weight", 1)
            / self.fields.get(f"{self.architecture}.rope.scaling.factor", 1)
        )
        angles = np.arange(len(x))[:, None, None] * frequencies
        neighbours = self.architecture in ("llama", "deci")
        a, b = (x[..., ::2], x[..., 1::2]) if neighbours else (x[..., : width // 2], x[..., width // 2 :])
        a, b = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
        return np.stack([a, b], axis=-1).reshape(x.shape) if neighbours else np.concatenate([a, b], axis=-1)

    def _norm(self, x, name):
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + self["attention.layer_norm_rms_epsilon"])
        return x / scale * self.tensors[f"{name}.weight"]

    def _linear(self, x, name):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", 0)
