/** The timer patterns of TCP, on a wheel with 16384 timers of which 4096 are armed. */
import Benchmark from 'benchmark';
import { TimerWheel } from '../src/workers/flow/timer-wheel.ts';
import { ops, sink } from './ops.ts';

const TIMERS = 16384;
const OPS = 1024;

function makeWheel(): TimerWheel {
  const wheel = new TimerWheel(TIMERS);
  // Idle flows' time-outs, spread over two hours.
  for (let id = TIMERS - 4096; id < TIMERS; id++) wheel.arm(id, (id * 7919) % 7_200_000);
  return wheel;
}

export function build(): Benchmark.Suite {
  const fire = (id: number): void => {
    sink.value ^= id;
  };
  const putOff = makeWheel();
  const eager = makeWheel();
  const armCancel = makeWheel();
  const asking = makeWheel();
  const steady = makeWheel();
  let now = 0;
  let turn = 0;
  let time = 0;
  return new Benchmark.Suite()
    .add(
      'put off by an acknowledgement (arm later)',
      () => {
        now += 0.1;
        for (let i = 0; i < OPS; i++) putOff.arm(i, now + 200 + i * 0.01);
        putOff.advance(now, fire);
      },
      ops(OPS),
    )
    .add(
      'brought forward (arm earlier, moves the entry)',
      () => {
        // From far to near in 64 steps, then far again: every step but the first is earlier.
        const delayMs = 200 - (turn++ & 63) * 3;
        for (let i = 0; i < OPS; i++) eager.arm(i, delayMs);
      },
      ops(OPS),
    )
    .add(
      'armed and cancelled (request, response)',
      () => {
        for (let i = 0; i < OPS; i++) {
          armCancel.arm(i, 200);
          armCancel.cancel(i);
        }
      },
      ops(OPS),
    )
    .add(
      'nextDeadline',
      () => {
        let sum = 0;
        for (let i = 0; i < OPS; i++) sum += asking.nextDeadline(i);
        sink.value ^= sum;
      },
      ops(OPS),
    )
    .add(
      'armed and fired (a tick for 16 timers)',
      () => {
        for (let i = 0; i < OPS; i += 16) {
          for (let j = 0; j < 16; j++) steady.arm(i + j, time + 100);
          time += 4;
          steady.advance(time, fire);
        }
      },
      ops(OPS),
    );
}
