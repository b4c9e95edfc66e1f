"""An exchange on one's own machine: Binance's USD-M protocol over a replayed market.

The core is pure (``venue``, ``gateway``, ``session``): time and messages come in, messages go out.
``server`` puts it on a port, ``embedded`` runs it in a thread. docs/exchange.md is the manual.
"""
