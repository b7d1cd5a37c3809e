# canary.py PORT: accepts every connection to PORT on any address of its network namespace, prints
# "LOCAL-ADDRESS from SOURCE" for each, and answers "CANARY". Prints "ready" when it listens.
import socket
import sys

listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(("::", int(sys.argv[1])))
listener.listen(1024)
print("ready", flush=True)


def plain(address):
    return address[7:] if address.startswith("::ffff:") else address


while True:
    connection, source = listener.accept()
    print(plain(connection.getsockname()[0]), "from", plain(source[0]), flush=True)
    try:
        connection.send(b"CANARY")
    except OSError:
        pass  # reset by who connected
    connection.close()
