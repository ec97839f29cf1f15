"""Where the groups of each supported architecture live; one file per family, found by `model_type`."""

from sentinel.errors import ModelUnsupported
from sentinel.models.families.base import Family
from sentinel.models.families.bloom import BloomFamily
from sentinel.models.families.cohere import CohereFamily
from sentinel.models.families.falcon import FalconFamily
from sentinel.models.families.gemma import GemmaFamily
from sentinel.models.families.gemma2 import Gemma2Family
from sentinel.models.families.gemma3 import Gemma3Family
from sentinel.models.families.gpt2 import GPT2Family
from sentinel.models.families.gpt_neo import GPTNeoFamily
from sentinel.models.families.gpt_neox import GPTNeoXFamily
from sentinel.models.families.gptj import GPTJFamily
from sentinel.models.families.granite import GraniteFamily
from sentinel.models.families.llama import LlamaFamily
from sentinel.models.families.mistral import MistralFamily
from sentinel.models.families.olmo2 import Olmo2Family
from sentinel.models.families.opt import OPTFamily
from sentinel.models.families.phi import PhiFamily
from sentinel.models.families.phi3 import Phi3Family
from sentinel.models.families.qwen2 import Qwen2Family
from sentinel.models.families.qwen3 import Qwen3Family
from sentinel.models.families.smollm3 import SmolLM3Family
from sentinel.models.families.stablelm import StableLmFamily
from sentinel.models.families.starcoder2 import Starcoder2Family

FAMILIES: tuple[Family, ...] = (
    BloomFamily(),
    CohereFamily(),
    FalconFamily(),
    GPT2Family(),
    GPTJFamily(),
    GPTNeoFamily(),
    GPTNeoXFamily(),
    Gemma2Family(),
    Gemma3Family(),
    GemmaFamily(),
    GraniteFamily(),
    LlamaFamily(),
    MistralFamily(),
    OPTFamily(),
    Olmo2Family(),
    Phi3Family(),
    PhiFamily(),
    Qwen2Family(),
    Qwen3Family(),
    SmolLM3Family(),
    StableLmFamily(),
    Starcoder2Family(),
)


def family_of(model_type: object) -> Family:
    """The family that serves a config's `model_type`.

    Raises:
        ModelUnsupported: No family does; the message names those that exist.
    """
    for family in FAMILIES:
        if isinstance(model_type, str) and model_type in family.model_types:
            return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise ModelUnsupported(f"Models of type {model_type!r} are not supported; supported are {supported}.")
