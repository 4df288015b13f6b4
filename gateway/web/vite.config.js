// The output is committed, since the Rust build embeds it and must not need npm: names without hashes, and text that can be read.

/** @type {import("vite").UserConfig} */
export default {
  build: {
    target: "es2022",
    minify: false,
    modulePreload: { polyfill: false },
    rollupOptions: { output: { entryFileNames: "page.js", assetFileNames: "page[extname]" } },
  },
};
