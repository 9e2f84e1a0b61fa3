"""A PJSIP watcher over TLS: prints `lamp STATE` for every change that it is told.

Usage: lamp.py PORT CERTIFICATE-AUTHORITY WATCHER WATCHED

It is the library of pjsua, whose BLF functions have no name in Python yet: they are called in the C library itself.
"""

import ctypes
import sys

import pjsua2 as pj
from pjsua2 import _pjsua2

port, authority, watcher, watched = sys.argv[1:]
native = ctypes.CDLL(_pjsua2.__file__)

endpoint = pj.Endpoint()
endpoint.libCreate()
config = pj.EpConfig()
config.uaConfig.threadCnt = 0
config.uaConfig.mainThreadOnly = True
config.logConfig.level = config.logConfig.consoleLevel = 0
endpoint.libInit(config)
transport = pj.TransportConfig()
transport.boundAddress = "127.0.0.1"
transport.tlsConfig.CaListFile = authority
transport.tlsConfig.verifyServer = True
endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, transport)
endpoint.libStart()

account_config = pj.AccountConfig()
account_config.idUri = watcher
account_config.sipConfig.proxies.append(f"sip:127.0.0.1:{port};transport=tls;lr")
account = pj.Account()
account.create(account_config)

buddy_config = pj.BuddyConfig()
buddy_config.uri = watched
buddy_config.subscribe = False
buddy = pj.Buddy()
buddy.create(account, buddy_config)
if native.pjsua_buddy_subscribe_dlg_event(buddy.getId(), 1) != 0:
    sys.exit("no subscription")

# The texts of the structure stand in the structure itself, so that its layout need not be known.
information = ctypes.create_string_buffer(64 * 1024)
shown = None
while True:
    endpoint.libHandleEvents(20)
    ctypes.memset(information, 0, len(information))
    native.pjsua_buddy_get_dlg_event_info(buddy.getId(), information)
    states = [state for state in ("early", "confirmed", "terminated") if state.encode() in information.raw]
    if states and states != shown:
        shown = states
        print("lamp", *states, flush=True)
