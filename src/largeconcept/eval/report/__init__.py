"""One HTML file about evaluations, sweeps and training runs: :func:`largeconcept.eval.report.page.write_report`."""
