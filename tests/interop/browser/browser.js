// Chromium with a camera and a microphone that need no hardware and no consent.

import { createRequire } from "node:module";

/** Starts it. `packages` is the folder in which `playwright-core` is installed. */
export function launch(packages) {
  const { chromium } = createRequire(`${packages}/`)("playwright-core");
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
  });
}

export const pause = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));
