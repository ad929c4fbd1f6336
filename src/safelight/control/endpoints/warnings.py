"""What an endpoint or deployment was asked for and does not get as on Azure: said in the answer and in the logs."""

from __future__ import annotations

from safelight.control.endpoints.deployments import DeploymentSpec
from safelight.control.secrets.secret_references import HUB_TOKEN
from safelight.library_variables import SETTING_VARIABLES, for_libraries

UNUSED_FIELDS = {
    "code_configuration": "the model's own code serves it",
    "environment_id": "there is no container",
    "model_mount_path": "there is no container",
    "data_collector": "nothing is collected",
    "startup_probe": "readiness_probe says how long a replica may take to load its model",
}
"""Of a deployment on Azure, and why they mean nothing here."""


def endpoint_warnings(public_network_access: str) -> list[str]:
    if public_network_access.lower() == "enabled":
        return []
    return [
        f"public_network_access {public_network_access} has no effect: whoever reaches this server's address may ask"
    ]


def warnings_for(spec: DeploymentSpec, *, runtime: str = "local") -> list[str]:
    """One line for each thing that has no effect, or another one than on Azure."""
    warnings = [f"{field.removesuffix('_id')} has no effect: {UNUSED_FIELDS[field]}" for field in spec.unused_fields]
    if spec.scale_settings is not None and runtime == "local":
        warnings.append(f"scale_settings has no effect on one machine: there are {spec.num_instances} instances")
    if spec.instance_type and runtime == "local":
        warnings.append(f"instance_type {spec.instance_type} has no effect on your own machine: its devices are used")
    if variables := sorted(
        spec.environment_variables.keys()
        - for_libraries(spec.environment_variables).keys()
        - SETTING_VARIABLES.keys()
        - {HUB_TOKEN}
    ):
        warnings.append(f"environment variables without effect, because no replica reads them: {', '.join(variables)}")
    if spec.app_insights_enabled:
        warnings.append("app_insights_enabled has no effect: /metrics has the figures")
    if spec.egress_public_network_access.lower() != "enabled":
        warnings.append("egress_public_network_access has no effect: this machine's network holds")
    return warnings + _probe_warnings(spec)


def _probe_warnings(spec: DeploymentSpec) -> list[str]:
    warnings = []
    if spec.load_timeout_s is not None:
        warnings.append(
            f"readiness_probe: a replica that has not loaded its model after {spec.load_timeout_s:g} s has failed; "
            "success_threshold has no effect"
        )
    if spec.max_silence_s is not None:
        warnings.append(
            f"liveness_probe: a replica that owes an answer for {spec.max_silence_s:g} s is replaced (never before "
            "twice the request timeout); initial_delay and success_threshold have no effect"
        )
    return warnings
