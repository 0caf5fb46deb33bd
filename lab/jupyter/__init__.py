"""What JupyterLab shows beside the notebooks: its server extension, the live view, and its configuration."""
