"""An engine refuses what it does not declare, though the gateway did so before it: nothing is silently left out."""

from __future__ import annotations

from schemas.capabilities import Capabilities
from schemas.errors import CapabilityMissing
from schemas.requests import GenerationRequest


def refuse_what_is_missing(capabilities: Capabilities, request: GenerationRequest) -> None:
    """Raises CapabilityMissing, naming the first that the request needs and the engine lacks."""
    missing = capabilities.missing_for(request)
    if missing is not None:
        raise CapabilityMissing(f"The model can not do what the request needs: {missing}.", param=missing)
