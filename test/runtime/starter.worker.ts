/** A thread that starts others and never returns to its event loop. */
import {
  type HeldProgram,
  onFirstMessage,
  type Port,
  postToCreator,
  receive,
  startHeldProgram,
} from '#runtime/threads';

export interface StarterTask {
  /** Gets StartOrder. */
  readonly port: Port;
  /** Number of orders so far, which is waited for. */
  readonly count: SharedArrayBuffer;
}

export interface StartOrder {
  readonly program: HeldProgram;
  readonly name: string;
  /** The first message of the new thread, which contains `port`. */
  readonly first: unknown;
  readonly port: Port;
}

function start({ port, count }: StarterTask): void {
  const orders = new Int32Array(count);
  postToCreator('ready');
  for (let seen = 0; ; seen++) {
    Atomics.wait(orders, 0, seen);
    const { program, name, first, port: passed } = receive(port)!.message as StartOrder;
    startHeldProgram(program, name, first, [passed]);
  }
}

onFirstMessage(start);
