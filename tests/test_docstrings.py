"""What a docstring calls a default is the default."""

import ast
import importlib
import inspect
import pkgutil
import re

import kipoi_deepmr

# ``seed : int, default 1``, ``psi : array_like, default 0``
PROMISE = re.compile(r"^ *([\w, ]+?) : .*, default ([^\s,;]+)", re.MULTILINE)
# What runs when it is imported.
LEFT_OUT = ("kipoi_deepmr.registration", "kipoi_deepmr.__main__")


def public_callables():
    for found in pkgutil.walk_packages(kipoi_deepmr.__path__, "kipoi_deepmr."):
        if found.name.startswith(LEFT_OUT):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != found.name or name.startswith("_"):
                continue
            if inspect.isclass(value):
                yield f"{found.name}.{name}", value.__doc__, value
                for inner, method in vars(value).items():
                    if inspect.isfunction(method) and not inner.startswith("_"):
                        yield f"{found.name}.{name}.{inner}", method.__doc__, method
            elif callable(value):
                yield f"{found.name}.{name}", value.__doc__, value


def test_a_documented_default_is_the_default():
    checked = 0
    for where, text, function in public_callables():
        for names, default in PROMISE.findall(text or ""):
            for name in names.split(", "):
                given = inspect.signature(function).parameters[name].default
                assert given == ast.literal_eval(default), (
                    f"{where}: {name} is {given!r} by default, documented is {default}"
                )
                checked += 1
    assert checked > 100
