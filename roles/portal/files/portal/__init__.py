# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal: pages for people's passwords and devices, autodiscover and autoconfig, and the guard of logins.

It runs behind the web gateway on a UNIX socket. Which reseller's site asks is in the header `X-Bouwsteen-Reseller`,
which the gateway always overwrites. The portal keeps no state: all it knows is in the directory and in its settings.
"""
