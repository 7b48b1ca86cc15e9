"""Everything model_runtime raises on purpose.

ModelRuntimeError
├── LoadError               the model cannot be loaded: the message says which file, what was wrong, what to do
│   ├── ModelNotFoundError      no such path, repository or file
│   ├── ModelFormatError        the file is damaged, or not a layout this engine runs
│   ├── EngineUnavailableError  the engine's package or execution provider is not installed or not usable
│   ├── ModelAccessError        the Hub does not let this user have the model (no token, gated, private)
│   ├── DownloadError           the network or the Hub failed; the next try goes on where this one stopped
│   ├── DiskFullError           the model does not fit on the disk
│   ├── LoadTimeoutError        the download and the load took longer than the caller allows
│   └── LoadCancelled           the caller's cancellation ended a download or a load
├── BadInputError           the caller's fault; the engine's state is as before the call
│   ├── ContextOverflowError    tokens would not fit the context
│   ├── BadTokenError           an id outside the vocabulary
│   ├── UnknownSequenceError    a sequence that is not open here
│   ├── KVMismatchError         imported KV belongs to another model, or is damaged
│   ├── UnsupportedError        this engine cannot do that (see EngineInfo.capabilities)
│   ├── TemplateError           the chat template refuses these messages
│   └── ConstraintError         a JSON schema, regex or grammar that cannot be held, or was broken
│       └── ConstraintUnavailableError  what holds constraints is not installed
├── Cancelled               the caller's cancellation ended a pass; every sequence is as before the call
└── EngineFailedError       our fault or the hardware's: the engine must not be used again
"""

from __future__ import annotations


class ModelRuntimeError(Exception):
    """Base of all errors of model_runtime."""


class LoadError(ModelRuntimeError):
    """The model cannot be loaded."""


class ModelNotFoundError(LoadError):
    """No such path, repository or file."""


class ModelFormatError(LoadError):
    """The file is damaged, or not a layout that this engine runs."""


class EngineUnavailableError(LoadError):
    """The engine's package or execution provider is not installed or not usable here."""


class ModelAccessError(LoadError):
    """The Hub does not let this user have the model: a token is missing or wrong, or terms are not accepted."""


class DownloadError(LoadError):
    """The network or the Hub failed. What has arrived is kept: the next try goes on from there."""


class DiskFullError(LoadError):
    """The model does not fit on the disk."""


class LoadTimeoutError(LoadError):
    """The download and the load took longer than the caller allows."""


class LoadCancelled(LoadError):  # noqa: N818 - an outcome that the caller asked for, not an error
    """The caller's cancellation ended a download or a load."""


class BadInputError(ModelRuntimeError):
    """The caller's fault; the engine's state is as it was before the call."""


class ContextOverflowError(BadInputError):
    """The tokens would not fit the context."""


class BadTokenError(BadInputError):
    """A token id outside the vocabulary."""


class UnknownSequenceError(BadInputError):
    """A sequence that is not open in this engine."""


class KVMismatchError(BadInputError):
    """Imported KV belongs to another model, or is damaged."""


class UnsupportedError(BadInputError):
    """This engine cannot do that; see `EngineInfo.capabilities`."""


class TemplateError(BadInputError):
    """The chat template is broken, or refuses these messages."""


class ConstraintError(BadInputError):
    """A JSON schema, regex or grammar cannot be held, or the answer so far breaks it."""


class ConstraintUnavailableError(ConstraintError):
    """What holds constraints is not installed; the message names the extra."""


class Cancelled(ModelRuntimeError):  # noqa: N818 - an outcome that the caller asked for, not an error
    """The caller's cancellation ended a pass; every sequence is as it was before the call."""


class EngineFailedError(ModelRuntimeError):
    """The engine broke during a pass and must not be used again."""
