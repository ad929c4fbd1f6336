"""What the flow is shown, and the stages that teach it; from and to the package folder."""
