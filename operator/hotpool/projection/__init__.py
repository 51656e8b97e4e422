"""The projection of pools and nodes into Redis, and the look-up of dispatchers.

Called by the reconciler (writer) and by dispatchers (look-up, through hotpool.lookup). The only importer of redis.
It must not decide anything about membership: it copies what it is given, and says how old and how complete that is.
"""
