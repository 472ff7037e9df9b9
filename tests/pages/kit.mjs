// What all looks at the pages share: a browser, pages in it that note what goes wrong, axe, pictures. Reads
// PARETO_BASE, PARETO_TOKEN, PARETO_SCREENSHOTS, PARETO_BROWSER_KIT, PARETO_CHROMIUM.
import { createRequire } from "node:module";
import { readFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

export const { PARETO_BASE: base, PARETO_TOKEN: token } = process.env;
const { PARETO_BROWSER_KIT: kit, PARETO_SCREENSHOTS: shots } = process.env;
const require = createRequire(join(kit, "node_modules", "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
if (shots) mkdirSync(shots, { recursive: true });

export const browser = await chromium.launch({
  executablePath: process.env.PARETO_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// What was seen; each look adds its own to it.
export const out = { violations: [], foreign: [], errors: [], unreached: [], weights: [] };

// A page in a context of its own, for a user of this name.
export const open = async (username, scheme, more = {}) => {
  const context = await browser.newContext({
    colorScheme: scheme, viewport: { width: 1360, height: 900 }, reducedMotion: "reduce",
    httpCredentials: { username, password: token }, ...more,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith("data:")) out.foreign.push(request.url());
  });
  page.on("console", (message) => {
    if (message.type() === "error") out.errors.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => out.errors.push(`${page.url()}: ${error}`));
  await page.addInitScript(() => {
    window.policy = [];
    document.addEventListener("securitypolicyviolation", (event) => window.policy.push(event.violatedDirective + " " + event.blockedURI));
  });
  return page;
};

// Has axe look at a page as it is.
export const examine = async (page, where) => {
  await page.evaluate(axe);
  const told = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  for (const one of told.violations) {
    out.violations.push(`${where}: ${one.id} (${one.nodes.length}): ${one.nodes[0].target} ${one.nodes[0].failureSummary}`);
  }
};

// Keeps a picture of the whole page where pictures are wanted.
export const picture = async (page, path, scheme) => {
  if (!shots) return;
  const name = path.replace(/[^a-z0-9]+/gi, "-").replace(/^-|-$/g, "").slice(0, 60) || "overview";
  await page.screenshot({ path: join(shots, `${name}.${scheme}.png`), fullPage: true });
};
