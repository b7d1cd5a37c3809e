/** The ways in which TCP uses timers, on a wheel with 16384 timers of which 4096 are armed. */
import Benchmark from 'benchmark';
import { TimerWheel } from '../src/workers/flow/timer-wheel.ts';
import { ops, sink } from './ops.ts';

const TIMERS = 16384;
const OPS = 1024;

function makeWheel(): TimerWheel {
  const wheel = new TimerWheel(TIMERS);
  // Timeouts of idle flows, spread over two hours.
  for (let id = TIMERS - 4096; id < TIMERS; id++) wheel.arm(id, (id * 7919) % 7_200_000);
  return wheel;
}

export function build(): Benchmark.Suite {
  const fire = (id: number): void => {
    sink.value ^= id;
  };
  const postponed = makeWheel();
  const advanced = makeWheel();
  const cancelled = makeWheel();
  const queried = makeWheel();
  const fired = makeWheel();
  let now = 0;
  let turn = 0;
  let time = 0;
  return new Benchmark.Suite()
    .add(
      'put off by an acknowledgement (arm later)',
      () => {
        now += 0.1;
        for (let i = 0; i < OPS; i++) postponed.arm(i, now + 200 + i * 0.01);
        postponed.advance(now, fire);
      },
      ops(OPS),
    )
    .add(
      'brought forward (arm earlier, moves the entry)',
      () => {
        // The delay shrinks in 64 steps and starts over: every deadline but the first is earlier than the
        // last.
        const delayMs = 200 - (turn++ & 63) * 3;
        for (let i = 0; i < OPS; i++) advanced.arm(i, delayMs);
      },
      ops(OPS),
    )
    .add(
      'armed and cancelled (request, response)',
      () => {
        for (let i = 0; i < OPS; i++) {
          cancelled.arm(i, 200);
          cancelled.cancel(i);
        }
      },
      ops(OPS),
    )
    .add(
      'nextDeadline',
      () => {
        let sum = 0;
        for (let i = 0; i < OPS; i++) sum += queried.nextDeadline(i);
        sink.value ^= sum;
      },
      ops(OPS),
    )
    .add(
      'armed and fired (a tick for 16 timers)',
      () => {
        for (let i = 0; i < OPS; i += 16) {
          for (let j = 0; j < 16; j++) fired.arm(i + j, time + 100);
          time += 4;
          fired.advance(time, fire);
        }
      },
      ops(OPS),
    );
}
