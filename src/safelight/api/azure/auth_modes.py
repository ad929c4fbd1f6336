"""How clients show who they are to an endpoint, in our words and in Azure's."""

AUTH_MODES = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}
"""As YAML files and the control plane have them, and as ARM does."""
