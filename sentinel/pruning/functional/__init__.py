"""Models as pure functions of their weights, their gates and the tokens of a window, in JAX. Loads no torch."""

from sentinel.errors import Fault, SentinelError

__all__ = ["Array", "JaxMissing"]


class JaxMissing(SentinelError, ImportError):
    """This installation has no JAX."""

    code = "jax_missing"
    fault = Fault.USER
    next_step = "Install it, pip install 'sentinel-pruning[jax]', or use `sentinel.pruning.pruning_module`, on torch."


try:
    from jax import Array
except ImportError as error:
    raise JaxMissing(f"The pruning module on JAX needs JAX, which is not there: {error}.") from error
