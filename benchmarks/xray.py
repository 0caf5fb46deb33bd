"""How long the X-ray takes on a long queue, and how much of it Redis sends.

python benchmarks/xray.py --messages 100000
"""

import argparse
import statistics
import time

from lab.notebook import open_sandbox
from lab.xray import xray
from tasks.basic_tasks import add


def main() -> None:
    """Fill a queue, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000, help="on the queue (default 100000)")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (default 5)")
    options = parser.parse_args()
    sandbox = open_sandbox()
    client = sandbox.broker.client()
    add.delay(1, 2)
    message = client.lindex("basic", 0) or b""
    with client.pipeline(transaction=False) as pipe:
        for _ in range(options.messages // 1000):
            pipe.lpush("basic", *[message] * 1000)
        pipe.execute()
    print(f"{client.llen('basic')} messages, {len(message) * client.llen('basic') / 1e6:.0f} MB")
    for name, queue in (("one queue", "basic"), ("all queues", None)):
        seconds = []
        before = client.info("stats")["total_net_output_bytes"]
        for _ in range(options.runs):
            started = time.perf_counter()
            xray(queue).text()
            seconds.append(time.perf_counter() - started)
        sent = (client.info("stats")["total_net_output_bytes"] - before) / options.runs / 1000
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{name:12} {statistics.median(seconds):6.3f} s   {spread}   {sent:.0f} kB")
    sandbox.close()


if __name__ == "__main__":
    main()
