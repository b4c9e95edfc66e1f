"""The dashboards of configs/grafana/dashboards, as code: ``python -m scripts.dashboards`` writes them."""
