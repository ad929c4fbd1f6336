"""Online endpoints behind their URLs: gateway, router, and what starts their deployments."""
