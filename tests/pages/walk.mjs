// Walks all finance pages in a real browser, in light and dark, with and without scripts and with the
// keyboard alone, and prints as JSON what it saw: every figure with its name, what axe says, requests,
// errors. Reads PARETO_BASE, PARETO_TOKEN, PARETO_PATHS (JSON), PARETO_SCREENSHOTS, PARETO_BROWSER_KIT.
import { base, browser, examine, open as opened, out, picture } from "./kit.mjs";

const paths = JSON.parse(process.env.PARETO_PATHS);
Object.assign(out, { figures: [], scriptless: [], swapped: null });
const open = (scheme, more) => opened("finance", scheme, more);

const figures = () => {
  const named = (element) => {
    if (element.dataset.sum !== undefined) return element.dataset.sum;
    const cell = element.closest("td");
    const table = cell?.closest("table[data-measure]");
    if (!table) return null;
    const column = table.querySelectorAll("thead tr > *")[cell.cellIndex].dataset.of;
    if (column === undefined) return null;
    const row = cell.parentElement.dataset.of;
    return `${table.dataset.measure}?` + [table.dataset.of, row, column].filter(Boolean).join("&");
  };
  return [...document.querySelectorAll("[data-nano], [data-count]")].map((element) => ({
    sum: named(element),
    value: element.dataset.nano ?? element.dataset.count,
    text: element.textContent.trim(),
    money: element.dataset.nano !== undefined,
  }));
};

// Both at once: most of the time is spent waiting.
const look = async (scheme) => {
  const page = await open(scheme);
  for (const path of paths) {
    let bytes = 0;
    const weigh = async (response) => { bytes += (await response.body().catch(() => "")).length; };
    page.on("response", weigh);
    await page.goto(base + path, { waitUntil: "load" });
    await page.waitForTimeout(150);
    page.off("response", weigh);
    if (scheme === "light") out.weights.push({ path, bytes });
    for (const figure of await page.evaluate(figures)) out.figures.push({ path, ...figure });
    for (const broken of await page.evaluate(() => window.policy)) out.errors.push(`${path}: policy ${broken}`);
    await examine(page, `${scheme} ${path}`);
    await picture(page, path, scheme);
  }
  await page.context().close();
};
await Promise.all([look("light"), look("dark")]);

// Without scripts, the same figures stand on the page, and filters are a form.
{
  const page = await open("light", { javaScriptEnabled: false });
  for (const path of paths) {
    await page.goto(base + path);
    const count = await page.locator("[data-nano], [data-count]").count();
    const svg = await page.locator("figure svg, .tile").count();
    out.scriptless.push({ path, count, svg });
  }
  await page.goto(base + "/?period=28d");
  await page.selectOption("select[name=period]", "7d");
  await page.locator("summary").first().click();
  await page.selectOption("select[name=tenant]", "acme");
  await page.click("form.filters button");
  if (!page.url().includes("period=7d") || !page.url().includes("tenant=acme")) out.errors.push(`the form led to ${page.url()}`);
  await page.context().close();
}

// With the keyboard alone, every filter and every page is reached.
{
  const page = await open("light");
  await page.goto(base + "/");
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => document.activeElement.className);
  if (first !== "skip") out.errors.push(`the first stop is ${first}`);
  await page.locator(".more").evaluate((more) => { more.open = true; });
  const wanted = await page.locator("form.filters select, form.filters input, form.filters button, nav a").evaluateAll(
    (all) => all.map((one, place) => { one.dataset.stop = String(place); return one.name || one.textContent; }));
  const seen = new Set();
  for (let stop = 0; stop < 120; stop += 1) {
    const at = await page.evaluate(() => document.activeElement?.dataset?.stop);
    if (at !== undefined) seen.add(Number(at));
    await page.keyboard.press("Tab");
  }
  out.unreached = wanted.filter((_, place) => !seen.has(place));
  await page.context().close();
}

// A filter changes the page in place, and its address.
{
  const page = await open("light");
  await page.goto(base + "/");
  await page.evaluate(() => { window.same = true; });
  await page.selectOption("select[name=period]", "28d");
  await page.waitForFunction(() => location.search.includes("period=28d") && document.querySelector(".period"), null, { timeout: 5000 }).catch(() => {});
  await page.waitForTimeout(300);
  out.swapped = await page.evaluate(() => ({
    same: window.same === true, url: location.search,
    period: document.querySelector(".period").textContent,
    plots: document.querySelectorAll(".uplot").length,
    policy: window.policy,
  }));
  await page.context().close();
}

await browser.close();
process.stdout.write(JSON.stringify(out));
